#include "core/recipe/preset.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

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
    preset.scheme = read_scheme(*map.map("scheme"));
    preset.pipeline = read_pipeline(map.list("pipeline"), "pipeline");
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

}  // namespace qb
