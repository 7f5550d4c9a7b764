#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "core/recipe/recipe.h"

namespace qb {

struct RecipeMistake {
  int line = 0, column = 0;  // 1-based, 0: unknown
  std::string key, what;     // dotted key; empty: of the text as a whole
  bool operator==(const RecipeMistake&) const = default;
};

// A text that may have mistakes: all of them, and what can be read beside them.
struct RecipeReading {
  Recipe recipe;
  std::vector<RecipeMistake> mistakes;  // in the order in which they stand in the text; none: recipe is what parse_recipe() gives
  bool has_keys = false;                // false: the text is no YAML mapping, and recipe says nothing of it
};
RecipeReading read_with_mistakes(const std::string& yaml, const std::filesystem::path& base = {});

}  // namespace qb
