#pragma once
#include "core/recipe/recipe.h"

namespace qb {

struct LlmcExport {
  std::string yaml;
  std::vector<std::string> notes;  // what LLMC cannot express and was left out or changed
};

// A recipe as LLMC's YAML (one file where LLMC can express it). Throws RecipeError when nothing of it can be expressed.
LlmcExport to_llmc(const Recipe& recipe);

// The same in two files where LLMC needs two: the first saves the transformed model, from which the second goes on. Both want the folder
// that they save into, and the second the first's, put in by hand.
std::vector<LlmcExport> to_llmc_steps(const Recipe& recipe);

struct LlmcImport {
  Recipe recipe;
  std::vector<std::string> notes;  // keys that were ignored or translated, each with its reason
};

// LLMC YAML (current and legacy keys). Throws RecipeError naming the key that has no counterpart here.
LlmcImport from_llmc(const std::string& yaml, const std::string& origin);

}  // namespace qb
