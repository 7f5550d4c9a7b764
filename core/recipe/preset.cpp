#include "core/recipe/preset.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <numeric>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/resources.h"
#include "core/measure/evaluators.h"
#include "core/method/stored_form.h"
#include "core/recipe/importance.h"
#include "core/recipe/recipe_read.h"

namespace qb {
namespace {

Preset load(const std::filesystem::path& path) {
  const std::string yaml = read_text(path, 1 << 20);
  const YAML::Node root = load_document(yaml, path.string());
  return with_positions(yaml, path.string(), [&] {
    YamlMap map(root, "");
    Preset preset;
    preset.name = path.stem().string();
    preset.title = map.text("title").value_or(preset.name);
    preset.description = map.text("description").value_or("");
    if (!map.has("scheme")) map.fail("scheme", "is missing");
    Mistakes mistakes;
    preset.scheme = read_scheme(*map.map("scheme"), mistakes);
    preset.pipeline = read_pipeline(map.list("pipeline"), "pipeline", mistakes);
    mistakes.throw_first();
    map.finish();
    return preset;
  });
}

}  // namespace

std::vector<Preset> presets() {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(resource("presets")))
    if (entry.path().extension() == ".yaml") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::vector<Preset> all;
  for (const auto& file : files) all.push_back(load(file));
  return all;
}

Preset find_preset(const std::string& name) {
  std::vector<std::string> names;
  for (Preset& preset : presets()) {
    if (preset.name == name) return preset;
    names.push_back(preset.name);
  }
  const auto similar = similar_names(name, names);
  throw InputError(fmt::format("there is no preset \"{}\"; {}", name,
                               similar.empty() ? fmt::format("presets: {}", fmt::join(names, ", ")) : fmt::format("did you mean \"{}\"?", similar.front())));
}

std::string to_text(PresetCost cost) {
  switch (cost) {
    case PresetCost::rounding: return "no calibration";
    case PresetCost::calibration: return "calibration";
    case PresetCost::search: return "search";
    case PresetCost::training: return "training";
  }
  throw InternalError("unknown cost");
}

std::string describe(PresetCost cost) {
  switch (cost) {
    case PresetCost::rounding: return "Takes little more than reading the weights.";
    case PresetCost::calibration: return "Runs the calibration text through every block once and solves for the codes.";
    case PresetCost::search: return "Runs the calibration text through every block and tries many scales or ranges.";
    case PresetCost::training: return "Takes gradient steps in every block or on the whole model: by far the slowest.";
  }
  throw InternalError("unknown cost");
}

PresetCost cost_of(const Preset& preset) {
  static const std::vector<std::string> training = {"omniquant", "tesseraq", "autoround", "norm_tweaking", "e2e_tuning"}, search = {"awq", "clip", "os_plus", "dgq", "adadim"};
  const bool fixed_ranges = preset.scheme.has_static_cache() || preset.scheme.has_static_activations();
  PresetCost cost = fixed_ranges ? PresetCost::calibration : PresetCost::rounding;
  for (const StageSpec& stage : preset.pipeline) {
    const auto among = [&](const std::vector<std::string>& names) { return std::find(names.begin(), names.end(), stage.method) != names.end(); };
    const MethodInfo* method = find_method(stage.method);
    const bool calibrated = (method && method->needs_calibration) || weighs_by_inputs(stage);
    cost = std::max(cost, among(training) ? PresetCost::training : among(search) ? PresetCost::search : calibrated ? PresetCost::calibration : PresetCost::rounding);
  }
  return cost;
}

namespace {

constexpr const char *kFour = "4 bits, weights", *kEight = "8 bits, weights", *kThree = "3 and 2 bits, weights", *kBoth = "Weights and activations", *kFloats = "FP8 and FP4", *kGguf = "GGUF types",
                     *kCaches = "With the KV cache", *kSparse = "Sparse";

bool prunes(const StageSpec& stage) {
  const MethodInfo* method = find_method(stage.method);
  return method && method->kind == MethodClass::sparsity;
}

}  // namespace

const std::vector<std::string>& preset_groups() {
  static const std::vector<std::string> groups = {kFour, kEight, kThree, kBoth, kFloats, kGguf, kCaches, kSparse};
  return groups;
}

std::string group_of(const Preset& preset) {
  const Scheme& scheme = preset.scheme;
  if (std::any_of(preset.pipeline.begin(), preset.pipeline.end(), prunes)) return kSparse;
  if (scheme.kv_cache) return kCaches;
  const QuantSpec spec = scheme.weights.value_or(QuantSpec{});
  if (spec.type.kind == NumberType::Kind::floating) return kFloats;
  if (spec.storage != Storage::none || !scheme.mix.empty()) return kGguf;
  if (scheme.activations) return kBoth;
  return spec.type.bits > 4 ? kEight : spec.type.bits == 4 ? kFour : kThree;
}

std::vector<Preset> presets_of(const std::string& group, const std::vector<Preset>& all) {
  std::vector<Preset> found;
  std::copy_if(all.begin(), all.end(), std::back_inserter(found), [&](const Preset& preset) { return group_of(preset) == group; });
  std::stable_sort(found.begin(), found.end(), [](const Preset& a, const Preset& b) { return cost_of(a) < cost_of(b); });
  return found;
}

std::optional<PresetSize> size_of(const Preset& preset, const ModelInfo& model) {
  if (!preset.scheme.mix.empty()) return std::nullopt;
  Recipe recipe;
  apply(preset, recipe);
  fit(recipe, model);
  double weights = 0, bits = 0;
  PresetSize size;
  for (const BlockInfo& block : model.blocks)
    for (const LinearInfo& linear : block.linears) {
      const auto spec = recipe.scheme.weights_of(linear.tensor.substr(0, linear.tensor.rfind('.')));
      if (spec && !misfit(*spec, linear.out_features, linear.in_features).empty()) return std::nullopt;
      const double count = static_cast<double>(linear.out_features) * static_cast<double>(linear.in_features);
      double each = static_cast<double>(linear.bytes) * 8 / count;
      if (spec) {
        const StoredForm form = stored_form(recipe.pipeline, *spec, linear.out_features, linear.in_features);
        if (form.weights.scale_type != spec->scale_type) return std::nullopt;
        QuantSpec counted = *spec;
        counted.round_zero_point = form.weights.round_zero_point;
        each = bits_per_weight(counted, linear.out_features, linear.in_features);
        size.at_least = size.at_least || form.exceptions;
      }
      size.bytes += each * count / 8;
      if (!spec) continue;
      weights += count;
      bits += each * count;
    }
  if (weights == 0) return std::nullopt;
  size.bits_per_weight = bits / weights;
  return size;
}

void apply(const Preset& preset, Recipe& recipe) {
  recipe.scheme = preset.scheme;
  recipe.pipeline = preset.pipeline;
  if (recipe.name.empty()) recipe.name = preset.title;
}

std::vector<std::string> fit(Recipe& recipe, const ModelInfo& model) {
  std::vector<std::string> changes;
  if (auto& weights = recipe.scheme.weights; weights && weights->granularity == Granularity::group && weights->storage == Storage::none) {
    const int64_t wanted = weights->group_size;
    int64_t narrowest = 0;
    auto divides = [&](int64_t size) {
      for (const BlockInfo& block : model.blocks)
        for (const LinearInfo& linear : block.linears) {
          const auto spec = recipe.scheme.weights_of(linear.tensor.substr(0, linear.tensor.rfind('.')));
          if (!spec || !(*spec == *weights) || linear.in_features % size == 0) continue;
          narrowest = linear.in_features;
          return false;
        }
      return true;
    };
    int64_t size = wanted;
    while (size > 16 && !divides(size)) size /= 2;
    if (size != wanted && divides(size)) {
      weights->group_size = size;
      changes.push_back(fmt::format("groups of {}: {} do not divide the {} inputs of {}'s linears", size, wanted, narrowest, model.name));
    }
  }
  if (model.context_length > 0) {
    if (recipe.calibration && recipe.calibration->sampling.seq_len > model.context_length) {
      recipe.calibration->sampling.seq_len = model.context_length;
      changes.push_back(fmt::format("calibration samples of {} tokens, the context of {}", model.context_length, model.name));
    }
    for (EvaluationSpec& evaluation : recipe.evaluation) {
      const EvaluatorInfo* evaluator = find_evaluator(evaluation.evaluator);
      if (evaluation.seq_len <= model.context_length || !evaluator || evaluator->data != EvaluationData::text) continue;
      evaluation.seq_len = model.context_length;
      changes.push_back(fmt::format("evaluation windows of {} tokens, the context of {}", model.context_length, model.name));
    }
  }
  return changes;
}

std::vector<int64_t> common_group_sizes(const std::vector<int64_t>& in_features) {
  int64_t common = 0;
  for (const int64_t width : in_features) common = std::gcd(common, width);
  std::vector<int64_t> known, others;
  for (int64_t size = std::min<int64_t>(common, 256); size >= 2; --size)
    if (common % size == 0) (size % 8 == 0 ? known : others).push_back(size);
  if (known.empty()) known = others;
  if (known.size() > 8) known.resize(8);
  return known;
}

void add_bundled_texts(Recipe& recipe) {
  if (!recipe.calibration) {
    recipe.calibration.emplace();
    recipe.calibration->corpus.path = resource("demo") / "calibration.txt";
    recipe.calibration->sampling.samples = 64;
    recipe.calibration->sampling.seq_len = 512;
  }
  if (recipe.evaluation.empty()) {
    recipe.evaluation.emplace_back();
    recipe.evaluation.back().corpus.path = resource("demo") / "evaluation.txt";
    recipe.evaluation.back().seq_len = 512;
  }
}

}  // namespace qb
