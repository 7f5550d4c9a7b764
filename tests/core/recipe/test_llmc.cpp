// LLMC's configurations: what is imported, what is refused, and that export and import agree.
#include <QtTest/QtTest>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/recipe/llmc.h"

using namespace qb;
namespace fs = std::filesystem;

namespace {

const std::string kHead = "base:\n    seed: &seed 7\nmodel:\n    type: Llama\n    path: /m\n    torch_dtype: auto\n";

std::pair<std::string, int> refusal(const std::string& yaml) {
  try {
    from_llmc(yaml, "c.yml");
  } catch (const RecipeError& e) {
    return {e.key(), e.line()};
  }
  return {"imported", 0};
}

bool has_note(const std::vector<std::string>& notes, const std::string& part) {
  return std::any_of(notes.begin(), notes.end(), [&](const std::string& n) { return n.find(part) != std::string::npos; });
}

// The first `method:` below `quant:`, by text: does not lean on our YAML reading.
std::string method_of(const std::string& yaml) {
  std::istringstream lines(yaml);
  bool inside = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("quant:", 0) == 0) inside = true;
    const size_t at = line.find("method:");
    if (inside && at != std::string::npos && line.find_first_not_of(' ') == at) return line.substr(line.find_first_not_of(' ', at + 7));
  }
  return "";
}

}  // namespace

class TestLlmc : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void a_configuration_means_the_same_here() {
    const LlmcImport r = from_llmc(kHead +
                                       "calib:\n    name: pileval\n    download: False\n    path: /pile\n    n_samples: 64\n    bs: -1\n    seq_len: 256\n    preproc: pileval_awq\n    seed: *seed\n"
                                       "eval:\n    eval_pos: [pretrain, transformed, fake_quant]\n    name: [wikitext2, c4]\n    path: /sets\n    seq_len: 1024\n"
                                       "quant:\n    method: RTN\n    quant_out: True\n    weight:\n        bit: 3\n        symmetric: False\n        granularity: per_group\n        group_size: 64\n        calib_algo: mse\n        maxshrink: 0.5\n"
                                       "    act:\n        bit: 8\n        symmetric: True\n        granularity: per_token\n"
                                       "ignored_layers:\n    block_ids: [4, 15-17]\n    layer_names: [\"mlp.down_proj\", self_attn.o_proj]\n    speical_names: [lm_head]\nsave:\n    save_fake: False\n",
                                   "c.yml");
    const Recipe& recipe = r.recipe;
    QCOMPARE(recipe.seed, uint64_t{7});
    QCOMPARE(recipe.calibration->sampling.seed, uint64_t{7});
    QCOMPARE(recipe.calibration->sampling.samples, int64_t{64});
    QCOMPARE(recipe.calibration->sampling.seq_len, int64_t{256});
    QCOMPARE(recipe.calibration->sampling.sampling, std::string("pileval_awq"));
    QCOMPARE(recipe.evaluation.size(), size_t{2});
    QCOMPARE(recipe.evaluation[1].corpus.path.string(), std::string("/sets/c4"));
    QCOMPARE(recipe.evaluation[1].seq_len, int64_t{1024});
    QVERIFY(recipe.evaluate_float && recipe.propagate_quantized);
    const QuantSpec& w = *recipe.scheme.weights;
    QVERIFY(w.type == *NumberType::parse("int3") && !w.symmetric && w.group_size == 64 && w.range == RangeMethod::mse && w.mse_max_shrink == 0.5);
    QVERIFY(!w.full_scale && w.scale_type == ScaleType::f32);  // LLMC: absmax / (2^(b-1)-1), unrounded
    QVERIFY(recipe.scheme.activations->granularity == Granularity::token && recipe.scheme.activations->type.bits == 8);
    QVERIFY(!recipe.scheme.weights_of("model.layers.16.mlp.down_proj") && !recipe.scheme.weights_of("model.layers.4.self_attn.o_proj"));
    QVERIFY(recipe.scheme.weights_of("model.layers.5.mlp.down_proj") && recipe.scheme.weights_of("model.layers.4.mlp.up_proj"));
    QVERIFY(has_note(r.notes, "transformed") && has_note(r.notes, "save"));
    QVERIFY(!has_note(r.notes, "download"));
  }

  void what_llmc_leaves_out_has_its_defaults() {
    const LlmcImport r = from_llmc(kHead + "quant:\n    method: RTN\n    weight:\n        bit: e4m3\n        quant_type: float-quant\n        granularity: per_channel\n        surprise: 1\n", "c.yml");
    QVERIFY(!r.recipe.propagate_quantized && !r.recipe.evaluate_float && !r.recipe.calibration && r.recipe.evaluation.empty());
    QVERIFY(r.recipe.scheme.weights->symmetric);
    QVERIFY(has_note(r.notes, "quant.weight.surprise"));
  }

  void refusals_name_llmcs_key_and_line() {
    const std::string w = "quant:\n    method: RTN\n    weight:\n        bit: 4\n        symmetric: False\n        granularity: per_channel\n";
    using P = std::pair<std::string, int>;
    QCOMPARE(refusal(kHead + w), P("imported", 0));
    QCOMPARE(refusal(kHead + "quant:\n    method: LlmInt8\n"), P("quant.method", 8));
    QCOMPARE(refusal(kHead + "quant:\n    method: QUIK\n"), P("quant.weight", 7));
    QCOMPARE(refusal(kHead + "sparse:\n    method: Wanda\n"), P("sparse", 7));
    QCOMPARE(refusal(kHead + w + "    kvcache:\n        method: Naive\n        bit: 8\n        granularity: per_token\n"), P("imported", 0));
    QCOMPARE(refusal(kHead + w + "    kvcache:\n        bit: 8\n"), P("quant.kvcache.method", 13));
    QCOMPARE(refusal(kHead + w + "    kvcache:\n        method: Kivi\n        bit: 8\n        granularity: per_token\n"), P("quant.kvcache.method", 14));
    QCOMPARE(refusal(kHead + w + "    kvcache:\n        method: Naive\n        bit: 8\n        granularity: per_tensor\n"), P("quant.kvcache.granularity", 16));
    QCOMPARE(refusal(kHead + w + "    kvcache:\n        method: Naive\n        bit: 8\n        granularity: per_tensor\n        static: True\n"), P("quant.kvcache.static", 17));  // no calibration
    QCOMPARE(refusal(kHead + w + "        calib_algo: learnable\n"), P("quant.weight.calib_algo", 13));
    QCOMPARE(refusal(kHead + w + "        int_range: [-120, 120]\n"), P("quant.weight.int_range", 13));
    QCOMPARE(refusal(kHead + w + "    act:\n        bit: 8\n        granularity: per_token\n        static: True\n"), P("quant.act.granularity", 15));
    QCOMPARE(refusal(kHead + w + "    act:\n        bit: 8\n        granularity: per_tensor\n        static: True\n        calib_algo: static_hist\n"), P("quant.act.calib_algo", 17));
    QCOMPARE(refusal(kHead + w + "    act:\n        bit: 8\n        granularity: per_channel\n"), P("quant.act.granularity", 15));
    QCOMPARE(refusal(kHead + "quant:\n    method: RTN\n    weight:\n        bit: 12\n"), P("quant.weight.bit", 10));
    QCOMPARE(refusal("quant:\n    method: RTN\n    weight:\n        bit: 4\n").first, std::string("model"));
    QCOMPARE(refusal(kHead + w + "ignored_layers:\n    block_ids: [a-3]\n    layer_names: [x]\n"), P("ignored_layers.block_ids", 14));
    QCOMPARE(refusal("").first, std::string());
  }

  void export_and_import_agree() {
    Recipe r;
    r.model = "/models/it's";
    r.dtype = "float32";
    r.seed = 5;
    r.propagate_quantized = false;
    r.evaluate_float = false;  // without evaluation LLMC has no place for it
    r.pipeline = {{"rtn", {}}};
    QuantSpec w;
    w.full_scale = false;
    w.scale_type = ScaleType::f32;
    auto same = [](Recipe recipe) {
      const LlmcExport out = to_llmc(recipe);
      Recipe back = from_llmc(out.yaml, "out.yml").recipe;
      back.name = recipe.name;
      if (!(back == recipe)) qWarning("%s\n---\n%s\n---\n%s", out.yaml.c_str(), to_yaml(recipe).c_str(), to_yaml(back).c_str());
      return back == recipe;
    };
    for (int bits : {2, 3, 4, 8})
      for (bool symmetric : {true, false})
        for (Granularity granularity : {Granularity::tensor, Granularity::channel, Granularity::group}) {
          w.type.bits = bits;
          w.symmetric = symmetric;
          w.granularity = granularity;
          w.group_size = granularity == Granularity::group ? 64 : 128;
          r.scheme.weights = w;
          QVERIFY(same(r));
        }
    r.evaluate_float = true;
    r.evaluation = {{{"wikitext2", "/wiki: #2", "text"}, 2048, 0, "float32"}, {{"c4", "/c4", "text"}, 512, 0, "float32"}};
    r.calibration = CalibrationSpec{{"pileval", "/pile", "text"}, {"pileval_awq", 64, 512, 9}};
    r.scheme.ignore = {"*.3.mlp.down_proj", "*.4.mlp.down_proj", "lm_head"};
    r.scheme.activations = w;
    r.scheme.activations->type.bits = 8;
    r.scheme.activations->granularity = Granularity::token;
    r.scheme.activations->group_size = 128;
    r.scheme.weights->range = RangeMethod::mse;
    r.scheme.weights->mse_max_shrink = 0.3;
    QVERIFY(same(r));
    r.scheme.weights->type = *NumberType::parse("e4m3");
    r.scheme.weights->symmetric = true;
    QVERIFY(same(r));
    // Caches: a token of LLMC's is one head's.
    for (Granularity granularity : {Granularity::head, Granularity::group, Granularity::tensor})
      for (const char* type : {"int8", "int4", "e4m3"}) {
        QuantSpec cache = default_cache_spec();
        cache.type = *NumberType::parse(type);
        cache.full_scale = false;
        cache.granularity = granularity;
        cache.dynamic = granularity != Granularity::tensor;
        if (granularity == Granularity::group) cache.group_size = 32;
        r.scheme.kv_cache = cache;
        QVERIFY(same(r));
        QVERIFY(to_llmc(r).yaml.find("kvcache:\n        method: Naive\n") != std::string::npos);
      }
    r.scheme.kv_cache.reset();
    r.scheme.head = w;
    QVERIFY(has_note(to_llmc(r).notes, "scheme.head: LLMC leaves embedding and head float"));
    r.scheme.head.reset();
    // HQQ: LLMC's method of its own; it takes no calibration.
    r.calibration.reset();
    r.scheme.weights = w;
    r.scheme.weights->symmetric = false;
    r.scheme.weights->round_zero_point = false;
    r.scheme.weights->range = RangeMethod::hqq;
    r.scheme.weights->hqq_beta = 0.000001;
    QVERIFY(same(r));
    QVERIFY(to_llmc(r).yaml.find("e-") == std::string::npos);  // PyYAML would read a text
  }

  void sixteen_bits_stay_float() {
    const std::string calib = "calib:\n    name: c4\n    path: /c\n    n_samples: 8\n    seq_len: 64\n    preproc: c4_gptq\n";
    const std::string four = "        bit: 4\n        symmetric: False\n        granularity: per_channel\n", eight = "        bit: 8\n        symmetric: True\n        granularity: per_token\n";
    const LlmcImport weights = from_llmc(kHead + "quant:\n    method: RTN\n    weight:\n" + four + "    act:\n        bit: 16\n        symmetric: True\n        granularity: per_token\n", "c.yml");
    QVERIFY(weights.recipe.scheme.weights && !weights.recipe.scheme.activations);
    QVERIFY(has_note(weights.notes, "quant.act.bit is 16: activations stay float"));
    QVERIFY(to_llmc(weights.recipe).yaml.find("act:") == std::string::npos);
    const LlmcImport act = from_llmc(kHead + calib + "quant:\n    method: SmoothQuant\n    weight:\n        bit: 16\n        granularity: per_channel\n    act:\n" + eight, "c.yml");
    QVERIFY(!act.recipe.scheme.weights && act.recipe.scheme.activations);
    QVERIFY(has_note(act.notes, "quant.weight.bit is 16: weights stay float"));
    const LlmcImport cache = from_llmc(kHead + "quant:\n    method: RTN\n    weight:\n" + four + "    kvcache:\n        method: Naive\n        bit: 16\n        granularity: per_token\n", "c.yml");
    QVERIFY(!cache.recipe.scheme.kv_cache && has_note(cache.notes, "quant.kvcache.bit is 16"));
    using P = std::pair<std::string, int>;
    QCOMPARE(refusal(kHead + "quant:\n    method: RTN\n    weight:\n        bit: 16\n    act:\n        bit: 16\n"), P("quant.weight.bit", 10));
    QCOMPARE(refusal(kHead + "quant:\n    method: HQQ\n    weight:\n        bit: 16\n    act:\n" + eight), P("quant.weight.bit", 10));
    QCOMPARE(refusal(kHead + "quant:\n    method: RTN\n    weight:\n        bit: 16.0\n"), P("quant.weight.bit", 10));
  }

  void dgq_and_quik_come_with_what_there_is_of_them() {
    const std::string calib = "calib:\n    name: c4\n    path: /c\n    n_samples: 8\n    seq_len: 64\n    preproc: c4_gptq\n";
    const std::string act = "    act:\n        bit: 8\n        symmetric: True\n        granularity: per_token\n";
    const auto dgq = [&](const std::string& groups, const std::string& channels) {
      return kHead + calib + "quant:\n    method: DGQ\n    weight:\n        w_1:\n            bit: 4\n            symmetric: False\n" + groups + "        w_2:\n" + channels + act;
    };
    const std::string groups = "            granularity: per_group\n            group_size: 64\n", channels = "            bit: 8\n            symmetric: True\n            granularity: per_channel\n";
    const LlmcImport two = from_llmc(dgq(groups, channels), "c.yml");
    QCOMPARE(two.recipe.pipeline.size(), size_t{2});
    QCOMPARE(two.recipe.pipeline[0].method, std::string("smoothquant"));
    QCOMPARE(knob<double>(two.recipe.pipeline[0], "alpha"), 0.5);
    QCOMPARE(two.recipe.pipeline[1].method, std::string("dgq"));
    QCOMPARE(knob<int64_t>(two.recipe.pipeline[1], "channel_steps"), int64_t{20});
    QCOMPARE(knob<int64_t>(two.recipe.pipeline[1], "group_steps"), int64_t{80});
    QCOMPARE(two.recipe.scheme.weights->type.bits, 4);
    QCOMPARE(two.recipe.scheme.weights->group_size, int64_t{64});
    QVERIFY(!two.recipe.scheme.weights->symmetric && two.recipe.scheme.activations);
    QVERIFY(from_llmc(to_llmc(two.recipe).yaml, "c.yml").recipe.pipeline == two.recipe.pipeline);
    QVERIFY(from_llmc(to_llmc(two.recipe).yaml, "c.yml").recipe.scheme == two.recipe.scheme);
    using P = std::pair<std::string, int>;
    QCOMPARE(refusal(dgq(groups, "            bit: 6\n            symmetric: True\n            granularity: per_channel\n")), P("quant.weight.w_2.bit", 22));
    QCOMPARE(refusal(dgq(groups, "            bit: 8\n            symmetric: False\n            granularity: per_channel\n")), P("quant.weight.w_2.symmetric", 23));
    QCOMPARE(refusal(dgq("            granularity: per_channel\n", channels)), P("quant.weight.w_1.granularity", 19));
    QCOMPARE(refusal(kHead + calib + "quant:\n    method: DGQ\n    weight:\n        bit: 4\n" + act), P("quant.weight.w_1", 15));
    Recipe other = two.recipe;
    other.pipeline[0].knobs["alpha"] = 0.8;
    QVERIFY_THROWS_EXCEPTION(RecipeError, to_llmc(other));
    other.pipeline.erase(other.pipeline.begin());
    QVERIFY_THROWS_EXCEPTION(RecipeError, to_llmc(other));

    const auto quik = [&](const std::string& special) {
      return kHead + calib + "quant:\n    method: QUIK\n    weight:\n        bit: 4\n        symmetric: True\n        granularity: per_channel\n" + act + "    special:\n" + special;
    };
    const LlmcImport kept = from_llmc(quik("        fp_relative: False\n        fp_features: 32\n        fp_threshold: 0.0\n        last_fc_bit: 4\n"), "c.yml");
    QCOMPARE(kept.recipe.pipeline.size(), size_t{1});
    QCOMPARE(kept.recipe.pipeline[0].method, std::string("quik"));
    QCOMPARE(knob<int64_t>(kept.recipe.pipeline[0], "columns"), int64_t{32});
    QVERIFY(has_note(kept.notes, "QUIK: the columns beside the kept ones are rounded by GPTQ here"));
    QVERIFY(!has_note(kept.notes, "left out; it has no counterpart"));
    const LlmcExport out = to_llmc(kept.recipe);
    QVERIFY(from_llmc(out.yaml, "c.yml").recipe.pipeline == kept.recipe.pipeline);
    QVERIFY(out.yaml.find("        fp_features: 32\n") != std::string::npos && out.yaml.find("        last_fc_bit: 4\n") != std::string::npos);
    QCOMPARE(refusal(quik("        fp_relative: True\n")), P("quant.special.fp_relative", 24));
    QCOMPARE(refusal(quik("        fp_threshold: 0.5\n")), P("quant.special.fp_threshold", 24));
    QCOMPARE(refusal(quik("        last_fc_bit: 8\n")), P("quant.special.last_fc_bit", 24));
  }

  void conversations_keep_their_chat_template() {
    const LlmcImport r = from_llmc(kHead + "calib:\n    name: custom_txt\n    path: /chats\n    apply_chat_template: True\n    n_samples: 8\n    seq_len: 64\n    preproc: random_truncate_txt\nquant:\n    method: RTN\n    weight:\n        bit: 4\n        symmetric: False\n        granularity: per_channel\n", "c.yml");
    QCOMPARE(r.recipe.calibration->corpus.field, std::string("messages"));
    QVERIFY(has_note(r.notes, "chat template"));
    QVERIFY(to_llmc(r.recipe).yaml.find("    path: '/chats'\n    apply_chat_template: True\n    n_samples: 8\n") != std::string::npos);
  }

  void what_llmc_cannot_say_is_told() {
    Recipe r;
    r.model = "/m";
    r.scheme.weights = QuantSpec{};
    r.scheme.overrides = {{"*.down_proj", std::nullopt}};
    r.scheme.ignore = {"re:.*q_proj"};
    r.evaluation = {{{"", "/t", "text"}, 2048, 20, "float32", Bos::every_window}};
    const LlmcExport out = to_llmc(r);
    for (const char* part : {"overrides", "evaluation[0].bos", "re:.*q_proj", "windows", "full_scale", "scale_type"}) QVERIFY2(has_note(out.notes, part), part);
    r.scheme = {};
    r.scheme.activations = QuantSpec{};
    r.scheme.activations->granularity = Granularity::token;
    QVERIFY_THROWS_EXCEPTION(RecipeError, to_llmc(r));
  }

  void every_configuration_of_llmc_is_imported_or_refused_with_its_key() {
    const fs::path folder = fs::path(QBENCH_SOURCE_DIR).parent_path() / "shared" / "data" / "llmc-configs";
    if (!fs::exists(folder)) QSKIP("../shared/data/llmc-configs is not here");
    // Files that ask for what this program does not have, by the key that asks.
    const std::map<std::string, std::string> refused = {
        {"backend/vllm/tesseraq_w4a16.yml", "quant.method"},
        {"methods/Awq/awq_w_a_mix_bits.yml", "quant.mix_bits"},
        {"methods/Awq/awq_w_only_custom_alm_data_padding.yml", "calib.name"},
        {"methods/Awq/awq_w_only_custom_avlm_data_padding.yml", "calib.name"},
        {"methods/Awq/awq_w_only_custom_data_debug.yml", "calib.name"},
        {"methods/Awq/awq_w_only_custom_vlm_data_padding.yml", "calib.name"},
        {"methods/Awq/awq_w_only_mix_bits_1.yml", "quant.mix_bits"},
        {"methods/Awq/awq_w_only_mix_bits_2.yml", "quant.mix_bits"},
        {"methods/Awq/awq_w_only_vit.yml", "calib.name"},
        {"methods/HQQ/hqq_w_only.yml", "quant.special.axis"},
        {"methods/LlmInt8/llmint8_w_only.yml", "quant.method"},
        {"methods/MixPrecision/awq_w_a_static.yml", "quant.act.calib_algo"},
        {"methods/KVQuant/rtn_w_a_kivi_quant_kv.yml", "quant.kvcache.method"},
        {"methods/KVQuant/rtn_w_a_pertensor_static_naive_quant_kv.yml", "quant.kvcache.granularity"},
        {"methods/MixPrecision/rtn_w_a_static.yml", "quant.act.calib_algo"},
        {"methods/RTN/rtn_w_a_pertensor_static.yml", "quant.act.calib_algo"},
        {"methods/RTN/rtn_w_a_vlm.yml", "quant.quant_objects"},
        {"methods/RTN/rtn_w_a_wint4afp8.yml", "quant.weight.bit"},
        {"methods/RTN/rtn_w_a_wint4aint8.yml", "quant.weight.bit"}};
    int imported = 0, all = 0;
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
      if (entry.path().extension() != ".yml") continue;
      ++all;
      const std::string name = fs::relative(entry.path(), folder).string(), yaml = read_text(entry.path());
      const std::string method = method_of(yaml);
      std::string key = "imported";
      try {
        const LlmcImport r = from_llmc(yaml, name);
        QVERIFY2(parse_recipe(to_yaml(r.recipe), name) == r.recipe, name.c_str());
        // LLMC wants OWQ's columns counted linear by linear, which a share cannot say.
        if (r.recipe.pipeline.front().method != "owq") from_llmc(to_llmc(r.recipe).yaml, name);
        ++imported;
      } catch (const RecipeError& e) {
        key = e.key();
        QVERIFY2(e.line() > 1 && e.column() > 0, e.what());
      }
      const bool only_text = yaml.find("vision:") == std::string::npos && yaml.find("video_gen:") == std::string::npos && yaml.find("quant_objects:") == std::string::npos;
      if (const auto it = refused.find(name); it != refused.end())
        QCOMPARE(name + " " + key, name + " " + it->second);
      else if (only_text && yaml.find("\nsparse:") == std::string::npos)
        QCOMPARE(name + " " + key, name + " imported");
      else if (only_text)
        QCOMPARE(name + " " + key, name + " sparse");
      else
        QVERIFY2(key == "quant.vision" || key == "quant.video_gen" || key == "quant.quant_objects" || key.find("method") != std::string::npos, (name + " " + key).c_str());
    }
    QCOMPARE(all, 123);
    QVERIFY2(imported >= 70, std::to_string(imported).c_str());
  }
};

QTEST_GUILESS_MAIN(TestLlmc)
#include "test_llmc.moc"
