#pragma once
#include "core/recipe/recipe.h"
#include "core/recipe/yaml_map.h"

namespace qb {

// Parts of a recipe, shared by recipes and presets. Errors are RecipeErrors with dotted keys, without positions.
Scheme read_scheme(YamlMap map);
std::vector<StageSpec> read_pipeline(const std::vector<YAML::Node>& list, const std::string& place);
// What no key tells alone: contradictions between keys. RecipeErrors with key, without position.
void check_consistency(const Recipe& recipe);
// Loads a single YAML document; RecipeError with line for what is not YAML, is empty, or holds several documents.
YAML::Node load_document(const std::string& yaml, const std::string& origin);
// Calls read() and adds file, line and column to the RecipeErrors it throws.
template <class F>
auto with_positions(const std::string& yaml, const std::string& origin, F read) {
  try {
    return read();
  } catch (const RecipeError& e) {
    const Position at = position_of(yaml, e.key());
    throw RecipeError(origin, at.line, at.column, e.key(), e.detail());
  }
}

}  // namespace qb
