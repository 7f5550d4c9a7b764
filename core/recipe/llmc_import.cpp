#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "core/base/error.h"
#include "core/recipe/llmc.h"
#include "core/recipe/llmc_methods.h"
#include "core/recipe/recipe_read.h"

namespace qb {
namespace {

constexpr int64_t kLarge = int64_t{1} << 40;

// "True" and "true" alike; LLMC files are Python's YAML.
bool flag(YamlMap& map, const std::string& key, bool otherwise) { return map.boolean(key).value_or(otherwise); }

// A scalar or a list of scalars, as LLMC allows for several keys.
std::vector<std::string> texts(YamlMap& map, const std::string& key) {
  const YAML::Node node = map.node(key);
  if (!node.IsDefined() || node.IsNull()) return {};
  if (node.IsScalar()) return {node.Scalar()};
  std::vector<std::string> values;
  for (const YAML::Node& item : map.list(key)) {
    if (!item.IsScalar()) map.fail(key, "expected a text or a list of texts");
    values.push_back(item.Scalar());
  }
  return values;
}

// What a key of ours is called in the LLMC file, so that an error points at what the user wrote.
std::string llmc_key(std::string key) {
  static const std::pair<const char*, const char*> names[] = {
      {"scheme.weights", "quant.weight"}, {"scheme.activations", "quant.act"}, {"scheme.kv_cache", "quant.kvcache"}, {"scheme.ignore", "ignored_layers"}, {"scheme", "quant"},
      {"calibration", "calib"},           {"evaluation", "eval"},             {"pipeline", "quant.method"}};
  for (const auto& [ours, theirs] : names)
    if (key.rfind(ours, 0) == 0) {
      key = theirs + key.substr(std::string(ours).size());
      break;
    }
  static const std::pair<const char*, const char*> ends[] = {{".type", ".bit"}, {".heads", ".head_num"}, {".range", ".calib_algo"}, {".round_zero_point", ".round_zp"}, {".dynamic", ".static"}};
  for (const auto& [ours, theirs] : ends)
    if (const std::string end = ours; key.size() > end.size() && key.compare(key.size() - end.size(), end.size(), end) == 0)
      key = key.substr(0, key.size() - end.size()) + theirs;
  return key;
}

class Import {
 public:
  LlmcImport read(const YAML::Node& root) {
    YamlMap map(root, "");
    if (auto base = map.map("base")) recipe_.seed = base->unsigned_integer("seed").value_or(recipe_.seed);
    if (map.has("sparse")) map.fail("sparse", "sparsification has no counterpart in this program yet");
    auto quant = map.map("quant");
    if (!quant) map.fail("quant", "is missing; only quantization can be imported");
    for (const char* other : {"vision", "video_gen"})
      if (quant->has(other)) quant->fail(other, "this program quantizes language models only");
    for (const std::string& object : texts(*quant, "quant_objects"))  // older files
      if (object != "language") quant->fail("quant_objects", fmt::format("{} was asked for; this program quantizes language models only", object));
    if (quant->has("token_reduction")) quant->fail("token_reduction", "is for vision models, which this program does not load");
    if (auto language = quant->map("language")) {
      leave_out(*quant);
      quantization(*language);
    } else {
      quantization(*quant);
    }
    model(map);
    if (auto calib = map.map("calib")) calibration(*calib);
    evaluation(map);
    if (auto ignored = map.map("ignored_layers")) ignored_layers(*ignored);
    if (map.node("save").IsDefined()) note("save was left out; checkpoints are exported from a finished run");
    leave_out(map);
    try {
      validate(recipe_);
    } catch (const RecipeError& e) {
      fail_at(llmc_key(e.key()), e.detail());
    }
    return {std::move(recipe_), std::move(notes_)};
  }

 private:
  void note(const std::string& text) { notes_.push_back(text); }

  // Keys that do not decide a result pass in silence; what else was not read is told.
  void leave_out(YamlMap& map, std::initializer_list<const char*> indifferent = {}) {
    for (const char* key : indifferent) map.node(key);
    for (const std::string& key : map.unread()) note(fmt::format("{} was left out; it has no counterpart here", map.place(key)));
  }

  void model(YamlMap& map) {
    auto model = map.map("model");
    if (!model) map.fail("model", "is missing");
    recipe_.model = model->text("path").value_or("");
    if (recipe_.model.empty()) {
      recipe_.model = "model path";
      note("model.path is empty; fill in the model");
    }
    const std::string dtype = model->text("torch_dtype").value_or("auto");
    if (dtype == "torch.float32") recipe_.dtype = "float32";
    if (dtype == "torch.float16") note("model.torch_dtype float16 became bfloat16");
    leave_out(*model, {"type", "tokenizer_mode", "use_cpu_to_save_cuda_mem_for_catcher"});
  }

  void calibration(YamlMap map) {
    CalibrationSpec spec;
    spec.corpus.name = map.text("name").value_or("");
    for (const char* other : {"custom_mm", "images", "t2v", "i2v", "vlm_datastes"})
      if (spec.corpus.name == other) map.fail("name", fmt::format("{} is no text", spec.corpus.name));
    spec.corpus.path = map.text("path").value_or("");
    if (spec.corpus.path.empty()) spec.corpus.path = spec.corpus.name;
    if (spec.corpus.path.empty()) map.fail("path", "is missing");
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
    if (map.boolean("apply_chat_template").value_or(false)) {
      spec.corpus.field = "messages";
      note("calib.apply_chat_template: each object's \"messages\" (calibration.field) go through the model's chat template");
    }
    note("calib.path names a Hugging Face data set folder; give a text or .jsonl file of it as calibration.corpus");
    leave_out(map, {"download", "bs", "padding"});
    recipe_.calibration = spec;
  }

  void evaluation(YamlMap& map) {
    const YAML::Node node = map.node("eval");
    recipe_.evaluate_float = false;
    if (!node.IsDefined() || node.IsNull()) return;
    const bool several = node.IsSequence();
    const std::vector<YAML::Node> entries = several ? map.list("eval") : std::vector<YAML::Node>{node};
    for (size_t i = 0; i < entries.size(); ++i) {
      YamlMap entry(entries[i], several ? fmt::format("eval[{}]", i) : "eval");
      const std::string type = entry.text("type").value_or("ppl");
      if (type != "ppl") {
        note(fmt::format("{} of type {} was left out; only perplexity is measured here", several ? fmt::format("eval[{}]", i) : "eval", type));
        continue;
      }
      const std::vector<std::string> places = texts(entry, "eval_pos");
      if (entry.has("eval_pos") && places.empty()) {
        note("eval was left out; its eval_pos is empty");
        continue;
      }
      for (const std::string& place : places) {
        if (place == "pretrain") recipe_.evaluate_float = true;
        if (place == "fake_quant_wo_kv") note("eval_pos fake_quant_wo_kv was left out; give a recipe without kv_cache for it");
        if (place == "transformed") note("eval_pos transformed was left out; the float and the quantized model are measured");
      }
      std::vector<std::string> sets = texts(entry, "name");
      if (sets.empty()) sets = {"evaluation text"};
      const std::filesystem::path path = entry.text("path").value_or("");
      const int64_t seq_len = entry.integer("seq_len", 2, kLarge).value_or(2048);
      for (const std::string& set : sets) {
        EvaluationSpec spec;
        spec.corpus.name = set;
        spec.corpus.path = path.empty() ? std::filesystem::path(set) : sets.size() > 1 ? path / set : path;
        spec.seq_len = seq_len;
        recipe_.evaluation.push_back(spec);
      }
      leave_out(entry, {"download", "bs", "inference_per_block", "num_samples"});
    }
    if (!recipe_.evaluation.empty()) note("eval.path names a Hugging Face data set folder; give a text file of it as evaluation corpus");
  }

  void quantization(YamlMap map) {
    const std::string method = map.text("method").value_or("");
    if (method != "HQQ" && !known_from_llmc(method))
      map.fail("method", fmt::format("{} has no counterpart in this program yet", method.empty() ? "nothing" : method));
    if (map.has("mix_bits")) map.fail("mix_bits", "mixed bits are not imported; write scheme.overrides");
    const std::string kind = map.text("quant_type").value_or("int-quant");  // older files have it here
    auto weight = map.map("weight");
    if (!weight && !map.has("act")) map.fail("weight", "is missing");
    if (weight) {
      learnable_ = method == "OmniQuant" || method == "TesseraQ" || method == "Awq";
      recipe_.scheme.weights = method == "DGQ" ? two_levels(*weight, kind) : part(*weight, kind, Role::weights);
      learnable_ = false;
      if (method == "HQQ") {
        if (!recipe_.scheme.weights) weight->fail("bit", "16 keeps weights float, and HQQ quantizes nothing else");
        hqq(map, *recipe_.scheme.weights);
      }
    }
    if (auto act = map.map("act")) recipe_.scheme.activations = part(*act, kind, Role::activations);
    if (auto cache = map.map("kvcache")) kv_cache(*cache, kind);
    if (!recipe_.scheme.weights && !recipe_.scheme.activations && !recipe_.scheme.kv_cache)
      (weight ? *weight : map).fail("bit", "16 keeps this float, and nothing else is quantized");
    if (method == "RTN" && map.node("special").IsDefined()) note("quant.special was left out; RTN has no settings");
    recipe_.propagate_quantized = flag(map, "quant_out", false);
    if (method == "RTN" || method == "HQQ") {
      recipe_.pipeline = {{"rtn", {}}};
    } else {
      auto special = map.map("special");
      recipe_.pipeline = stages_from_llmc(method, special ? &*special : nullptr, notes_);
      if (const auto bit = method == "QUIK" && special ? special->text("last_fc_bit") : std::nullopt; bit && recipe_.scheme.weights && *bit != std::to_string(recipe_.scheme.weights->type.bits))
        special->fail("last_fc_bit", fmt::format("expected {} as in weight.bit, found {}: more bits for the last linear of each MLP are not imported; write scheme.overrides for it",
                                                 recipe_.scheme.weights->type.text(), *bit));
      if (special) leave_out(*special);
    }
    leave_out(map, {"tp"});
    recipe_.name = fmt::format("{} {}", method, describe(recipe_.scheme));
  }

  void hqq(YamlMap& map, QuantSpec& spec) {
    spec.range = RangeMethod::hqq;
    auto special = map.map("special");
    if (!special) return;
    if (special->integer("axis", 0, 1).value_or(1) != 1) special->fail("axis", "only groups along in_features (axis 1) are supported");
    spec.hqq_norm = special->real("lp_norm", 0.05, 1).value_or(spec.hqq_norm);
    spec.hqq_beta = special->real("beta", 1e-6, 1e6).value_or(spec.hqq_beta);
    spec.hqq_kappa = special->real("kappa", 1, 100).value_or(spec.hqq_kappa);
    spec.hqq_iterations = special->integer("iters", 0, 1000).value_or(spec.hqq_iterations);
    leave_out(*special);
  }

  void kv_cache(YamlMap map, const std::string& kind) {
    const std::string method = map.text("method").value_or("");
    if (method == "Kivi") map.fail("method", "Kivi keeps the last tokens exact until residual_length of them are there, which has no counterpart in this program; Naive rounds each token as it comes");
    if (method != "Naive") map.fail("method", fmt::format("expected Naive, found \"{}\"", method));
    recipe_.scheme.kv_cache = part(map, kind, Role::cache);
  }

  enum class Role { weights, activations, cache };

  // "bit: 16" keeps that part float, whatever else its section says.
  std::optional<QuantSpec> part(YamlMap& map, const std::string& otherwise, Role role) {
    if (map.text("bit").value_or("") != "16") return quantizer(map, otherwise, role);
    note(fmt::format("{} is 16: {} stay float", map.place("bit"), role == Role::weights ? "weights" : role == Role::activations ? "activations" : "keys and values"));
    return std::nullopt;
  }

  // DGQ's groups, whose scales are integers of an 8-bit channel.
  QuantSpec two_levels(YamlMap& map, const std::string& otherwise) {
    auto groups = map.map("w_1"), channels = map.map("w_2");
    if (!groups) map.fail("w_1", "is missing; expected the groups that DGQ rounds to");
    if (!channels) map.fail("w_2", "is missing; expected the 8-bit channels that DGQ's groups lie in");
    auto require = [](YamlMap& in, const char* key, const std::string& expected, const std::string& found) {
      if (found != expected) in.fail(key, fmt::format("expected {}, found \"{}\": it is what DGQ has here", expected, found));
    };
    require(*channels, "bit", "8", channels->text("bit").value_or(""));
    require(*channels, "symmetric", "True", flag(*channels, "symmetric", true) ? "True" : "False");
    require(*channels, "granularity", "per_channel", channels->text("granularity").value_or("per_channel"));
    require(*channels, "quant_type", "int-quant", channels->text("quant_type").value_or(otherwise));
    require(*channels, "calib_algo", "minmax", channels->text("calib_algo").value_or("minmax"));
    leave_out(*channels, {"group_size"});
    const QuantSpec spec = quantizer(*groups, otherwise, Role::weights);
    require(*groups, "granularity", "per_group", "per_" + to_text(spec.granularity));
    leave_out(map);
    return spec;
  }

  QuantSpec quantizer(YamlMap map, const std::string& otherwise, Role role) {
    QuantSpec spec;
    const bool activations = role != Role::weights;
    const std::string kind = map.text("quant_type").value_or(otherwise);
    const std::string bit = map.text("bit").value_or("");
    const bool floating = kind.find("float") != std::string::npos || (!bit.empty() && bit[0] == 'e');
    if (bit == "48") map.fail("bit", "4-bit groups inside 8-bit channels (48) have no counterpart in this program yet");
    const auto type = NumberType::parse(floating ? bit : "int" + bit);
    if (!type) map.fail("bit", fmt::format("expected {}, found \"{}\"", floating ? "a float such as e4m3" : "1 to 8, or a float such as e4m3", bit));
    spec.type = *type;
    spec.symmetric = flag(map, "symmetric", true) || floating;
    std::string granularity = map.text("granularity").value_or("per_channel");
    if (granularity.rfind("per_", 0) == 0) granularity.erase(0, 4);
    const auto parsed = parse_granularity(granularity);
    if (!parsed) map.fail("granularity", fmt::format("\"{}\" is not known", granularity));
    spec.granularity = *parsed;
    if (role == Role::cache && spec.granularity == Granularity::token) spec.granularity = Granularity::head;  // its tokens are of one head
    if (const auto size = map.integer("group_size", -1, 1 << 20); size && *size > 0 && spec.granularity == Granularity::group) spec.group_size = *size;
    if (const auto size = map.integer("block_size", 1, 1 << 20); size && spec.granularity == Granularity::block) spec.block_rows = spec.block_cols = *size;
    if (const auto heads = map.integer("head_num", 1, 1 << 16); heads && spec.granularity == Granularity::head) spec.heads = *heads;
    spec.round_zero_point = flag(map, "round_zp", true);
    spec.full_scale = false;
    spec.scale_type = ScaleType::f32;
    if (activations) spec.dynamic = !flag(map, "static", false);
    if (!spec.dynamic && spec.granularity != Granularity::tensor) map.fail("granularity", fmt::format("expected per_tensor for static activations, found \"per_{}\"", granularity));
    if (!spec.dynamic) note(map.place("static") + ": the range is the largest of all calibration tokens; LLMC's static_minmax averages the samples' own");
    if (role == Role::cache) map.node("method");
    for (const char* key : {"int_range", "float_range", "bit4", "bit8", "w_1", "w_2"})
      if (map.has(key)) map.fail(key, "has no counterpart in this program yet");
    const std::string range = map.text("calib_algo").value_or("minmax");
    if (range == "mse") {
      spec.range = RangeMethod::mse;
      spec.mse_grid = map.integer("mse_grid", 1, 10000).value_or(spec.mse_grid);
      spec.mse_max_shrink = map.real("maxshrink", 0, 0.999).value_or(spec.mse_max_shrink);
    } else if (range != "minmax" && !(range == "static_minmax" && !spec.dynamic) && !(range == "learnable" && learnable_)) {
      map.fail("calib_algo", fmt::format("{} has no counterpart in this program yet", range));
    }
    if (map.node("need_pack").IsDefined() || map.node("pack_version").IsDefined()) note(map.place("need_pack") + " was left out; packing is decided at export");
    leave_out(map, {"use_qtorch", "ste", "ste_all", "pack_version", "mse_b_num", "mse_grid", "maxshrink"});
    return spec;
  }

  // block_ids × layer_names, and whole names, stay in float.
  void ignored_layers(YamlMap map) {
    const std::vector<std::string> names = texts(map, "layer_names");
    for (const std::string& ids : texts(map, "block_ids")) {
      const size_t dash = ids.find('-');
      const std::string first = ids.substr(0, dash), last = dash == std::string::npos ? first : ids.substr(dash + 1);
      int64_t low = 0, high = 0;
      auto read = [&](const std::string& text, int64_t& value) {
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        return !text.empty() && error == std::errc() && end == text.data() + text.size() && value >= 0 && value < 10000;
      };
      if (!read(first, low) || !read(last, high) || low > high) map.fail("block_ids", fmt::format("expected a number or first-last, found \"{}\"", ids));
      for (int64_t block = low; block <= high; ++block)
        for (const std::string& name : names) recipe_.scheme.ignore.push_back(fmt::format("*.{}.{}", block, name));
    }
    for (const std::string& name : texts(map, "speical_names")) recipe_.scheme.ignore.push_back(name);  // spelled so there
    leave_out(map);
  }

  Recipe recipe_;
  std::vector<std::string> notes_;
  bool learnable_ = false;  // the method learns the ranges: "learnable" is no range method of the scheme
};

}  // namespace

LlmcImport from_llmc(const std::string& yaml, const std::string& origin) {
  const YAML::Node root = load_document(yaml, origin);
  return with_positions(yaml, origin, [&] { return Import().read(root); });
}

}  // namespace qb
