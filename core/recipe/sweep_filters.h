#pragma once
#include <yaml-cpp/yaml.h>

#include <string>
#include <vector>

#include "core/recipe/yaml_map.h"

namespace qb {

// Recipes that `only` or `exclude` is of: those that have all of these values.
struct SweepFilter {
  struct Key {
    std::string key;
    YAML::Node value;  // or several, any of which it may be
  };
  std::string place;  // "sweep.exclude[0]"
  std::vector<Key> keys;
  bool matched = false;
};

// The section "sweep" of a file.
struct SweepBlock {
  std::string name;
  std::vector<SweepFilter> only, exclude;
  bool strict = false;
};

// Throws RecipeError with key.
SweepBlock read_sweep_block(YamlMap& root);
// canonical: the same recipe with its defaults, for keys that the file does not write.
bool matches(const SweepFilter& filter, const YAML::Node& recipe, const YAML::Node& canonical);
std::string filter_text(const SweepFilter& filter);
// The value at "scheme.weights.type" or "pipeline[0].method"; undefined where there is none.
YAML::Node node_at(YAML::Node node, const std::string& key);
bool is_list_key(const std::string& key);  // pipeline, evaluation, scheme.ignore, scheme.overrides

}  // namespace qb
