#pragma once
#include "core/recipe/recipe.h"

namespace qb {

struct LlmcExport {
  std::string yaml;
  std::vector<std::string> notes;  // what LLMC cannot express and was left out or changed
};

// A recipe as LLMC's YAML (one file where LLMC can express it). Throws RecipeError when nothing of it can be expressed.
LlmcExport to_llmc(const Recipe& recipe);

struct LlmcImport {
  Recipe recipe;
  std::vector<std::string> notes;  // keys that were ignored or translated, each with its reason
};

// LLMC YAML (current and legacy keys). Throws RecipeError naming the key that has no counterpart here.
LlmcImport from_llmc(const std::string& yaml, const std::string& origin);

}  // namespace qb
