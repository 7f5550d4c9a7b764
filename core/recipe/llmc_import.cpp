#include <fmt/format.h>

#include "core/base/error.h"
#include "core/recipe/llmc.h"
#include "core/recipe/recipe_read.h"

namespace qb {
namespace {

constexpr int64_t kLarge = int64_t{1} << 40;

// "True" and "true" alike; LLMC files are Python's YAML.
bool flag(YamlMap& map, const std::string& key, bool otherwise) { return map.boolean(key).value_or(otherwise); }

class Import {
 public:
  LlmcImport read(const YAML::Node& root) {
    YamlMap map(root, "");
    if (auto base = map.map("base")) recipe_.seed = base->unsigned_integer("seed").value_or(recipe_.seed);
    if (map.has("sparse")) map.fail("sparse", "sparsification has no counterpart in this program yet");
    if (map.has("token_reduction")) map.fail("token_reduction", "token reduction is for vision models, which this program does not load");
    auto model = map.map("model");
    if (!model) map.fail("model", "is missing");
    recipe_.model = model->text("path").value_or("");
    if (recipe_.model.empty()) {
      recipe_.model = "model path";
      note("model.path is empty; fill in the model");
    }
    if (model->text("torch_dtype").value_or("auto") == "torch.float32") recipe_.dtype = "float32";
    if (auto calib = map.map("calib")) calibration(*calib);
    evaluation(map);
    auto quant = map.map("quant");
    if (!quant) map.fail("quant", "is missing; only quantization can be imported");
    for (const char* other : {"vision", "video_gen"})
      if (quant->has(other)) quant->fail(other, "this program quantizes language models only");
    quantization(quant->has("language") ? *quant->map("language") : *quant);
    if (map.has("ignored_layers")) note("ignored_layers was left out; write scheme.ignore patterns instead");
    if (map.has("save")) note("save was left out; checkpoints are exported from a finished run");
    validate(recipe_);
    return {std::move(recipe_), std::move(notes_)};
  }

 private:
  void note(const std::string& text) { notes_.push_back(text); }

  void calibration(YamlMap map) {
    CalibrationSpec spec;
    spec.corpus.name = map.text("name").value_or("");
    if (spec.corpus.name == "custom_mm" || spec.corpus.name == "images" || spec.corpus.name == "t2v" || spec.corpus.name == "i2v")
      map.fail("name", fmt::format("{} is no text", spec.corpus.name));
    spec.corpus.path = map.text("path").value_or("");
    if (spec.corpus.path.empty()) spec.corpus.path = spec.corpus.name;
    spec.sampling.samples = map.integer("n_samples", 1, kLarge).value_or(128);
    spec.sampling.seq_len = map.integer("seq_len", 1, kLarge).value_or(512);
    spec.sampling.seed = map.unsigned_integer("seed").value_or(recipe_.seed);
    std::string preproc = map.text("preproc").value_or("random_truncate_txt");
    if (preproc == "general") preproc = "txt_general_preproc";  // LLMC's older name
    const auto& names = sampling_names();
    if (std::find(names.begin(), names.end(), preproc) == names.end()) {
      note(fmt::format("calib.preproc {} is not known here; random_truncate_txt was taken", preproc));
      preproc = "random_truncate_txt";
    }
    spec.sampling.sampling = preproc;
    note("calib.path names a Hugging Face data set folder; give a text or .jsonl file of it as calibration.corpus");
    recipe_.calibration = spec;
  }

  void evaluation(YamlMap& map) {
    const YAML::Node node = map.node("eval");
    if (!node.IsDefined() || node.IsNull()) return;
    std::vector<YAML::Node> entries = node.IsSequence() ? map.list("eval") : std::vector<YAML::Node>{node};
    for (size_t i = 0; i < entries.size(); ++i) {
      YamlMap entry(entries[i], node.IsSequence() ? fmt::format("eval[{}]", i) : "eval");
      const std::string type = entry.text("type").value_or("ppl");
      if (type != "ppl") {
        note(fmt::format("eval of type {} was left out; only perplexity is measured here", type));
        continue;
      }
      EvaluationSpec spec;
      const YAML::Node name = entry.node("name");
      spec.corpus.name = name.IsDefined() && name.IsScalar() ? name.Scalar() : "evaluation text";
      spec.corpus.path = entry.text("path").value_or("");
      if (spec.corpus.path.empty()) spec.corpus.path = spec.corpus.name;
      spec.seq_len = entry.integer("seq_len", 2, kLarge).value_or(2048);
      recipe_.evaluation.push_back(spec);
    }
    if (!recipe_.evaluation.empty()) note("eval.path names a Hugging Face data set folder; give a text file of it as evaluation corpus");
  }

  void quantization(YamlMap map) {
    const std::string method = map.text("method").value_or("");
    if (method != "RTN" && method != "HQQ") map.fail("method", fmt::format("{} has no counterpart in this program yet", method.empty() ? "nothing" : method));
    auto weight = map.map("weight");
    if (!weight && !map.has("act")) map.fail("weight", "is missing");
    if (weight) {
      recipe_.scheme.weights = quantizer(*weight, map, false);
      if (method == "HQQ") hqq(map, *recipe_.scheme.weights);
    }
    if (auto act = map.map("act")) recipe_.scheme.activations = quantizer(*act, map, true);
    if (map.has("kvcache")) map.fail("kvcache", "quantized KV caches have no counterpart in this program yet");
    if (map.has("special") && method == "RTN") note("quant.special was left out; RTN has no settings");
    recipe_.pipeline = {{"rtn", {}}};
    if (recipe_.name.empty()) recipe_.name = fmt::format("{} {}", method, describe(recipe_.scheme));
  }

  static void hqq(YamlMap& map, QuantSpec& spec) {
    spec.range = RangeMethod::hqq;
    auto special = map.map("special");
    if (!special) return;
    if (special->integer("axis", 0, 1).value_or(1) != 1) special->fail("axis", "only groups along in_features (axis 1) are supported");
    spec.hqq_norm = special->real("lp_norm", 0.05, 1).value_or(spec.hqq_norm);
    spec.hqq_beta = special->real("beta", 1e-6, 1e6).value_or(spec.hqq_beta);
    spec.hqq_kappa = special->real("kappa", 1, 100).value_or(spec.hqq_kappa);
    spec.hqq_iterations = special->integer("iters", 0, 1000).value_or(spec.hqq_iterations);
  }

  QuantSpec quantizer(YamlMap map, YamlMap& quant, bool activations) {
    QuantSpec spec;
    const std::string kind = map.text("quant_type").value_or(quant.text("quant_type").value_or("int-quant"));
    const std::string bit = map.text("bit").value_or("");
    const bool floating = kind.find("float") != std::string::npos || (!bit.empty() && bit[0] == 'e');
    const auto type = NumberType::parse(floating ? bit : "int" + bit);
    if (!type) map.fail("bit", fmt::format("expected 1 to 8, or a float such as e4m3, found \"{}\"", bit));
    spec.type = *type;
    spec.symmetric = flag(map, "symmetric", true) || floating;
    std::string granularity = map.text("granularity").value_or("per_channel");
    if (granularity.rfind("per_", 0) == 0) granularity.erase(0, 4);
    const auto parsed = parse_granularity(granularity);
    if (!parsed) map.fail("granularity", fmt::format("\"{}\" is not known", granularity));
    spec.granularity = *parsed;
    if (const auto size = map.integer("group_size", -1, 1 << 20); size && *size > 0) spec.group_size = *size;
    if (const auto size = map.integer("block_size", 1, 1 << 20)) spec.block_rows = spec.block_cols = *size;
    if (const auto heads = map.integer("head_num", 1, 1 << 16)) spec.heads = *heads;
    spec.round_zero_point = flag(map, "round_zp", true);
    spec.full_scale = false;
    spec.scale_type = ScaleType::f32;
    const std::string range = map.text("calib_algo").value_or("minmax");
    if (range == "mse") {
      spec.range = RangeMethod::mse;
      spec.mse_grid = map.integer("mse_grid", 1, 10000).value_or(spec.mse_grid);
      spec.mse_max_shrink = map.real("maxshrink", 0, 0.999).value_or(spec.mse_max_shrink);
    } else if (range != "minmax") {
      map.fail("calib_algo", fmt::format("{} has no counterpart in this program yet", range));
    }
    if (activations && flag(map, "static", false)) map.fail("static", "static activation ranges have no counterpart in this program yet");
    if (map.has("need_pack")) note("weight.need_pack was left out; packing is decided at export");
    return spec;
  }

  Recipe recipe_;
  std::vector<std::string> notes_;
};

}  // namespace

LlmcImport from_llmc(const std::string& yaml, const std::string& origin) {
  const YAML::Node root = load_document(yaml, origin);
  return with_positions(yaml, origin, [&] { return Import().read(root); });
}

}  // namespace qb
