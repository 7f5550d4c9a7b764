#include "core/recipe/preset.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/resources.h"
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
      if (evaluation.seq_len <= model.context_length) continue;
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
