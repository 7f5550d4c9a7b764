#pragma once
#include "core/recipe/recipe.h"
#include "core/recipe/yaml_map.h"

namespace qb {

// Gathers RecipeErrors with dotted keys, without positions: one mistake does not hide the next.
class Mistakes {
 public:
  // Carries a step of reading out; false: it was a mistake, and is told.
  template <class F>
  bool take(F step) {
    try {
      step();
      return true;
    } catch (const RecipeError& e) {
      all_.push_back(e);
      return false;
    }
  }
  void unknown_keys(const YamlMap& map) {
    for (const RecipeError& e : map.unknown()) all_.push_back(e);
  }
  bool empty() const { return all_.empty(); }
  bool inside(const std::string& key) const;  // of the key or of one below it
  const std::vector<RecipeError>& all() const { return all_; }  // in the order of reading
  void throw_first() const {
    if (!all_.empty()) throw all_.front();
  }

 private:
  std::vector<RecipeError> all_;
};

// The recipe that a document's mapping is, its contradictions included in the mistakes.
Recipe read_whole(YamlMap map, const std::filesystem::path& base, Mistakes& mistakes);
// Parts of a recipe, shared by recipes and presets: what can be read of them.
Scheme read_scheme(YamlMap map, Mistakes& mistakes);
std::vector<StageSpec> read_pipeline(const std::vector<YAML::Node>& list, const std::string& place, Mistakes& mistakes);
// What no key tells alone: contradictions between keys. Leaves out what hangs on a part that could not be read.
void check_consistency(const Recipe& recipe, Mistakes& mistakes);
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
