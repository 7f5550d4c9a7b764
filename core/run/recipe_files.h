#pragma once
#include <string>
#include <vector>

#include "core/recipe/recipe.h"

namespace qb {

// What the files that a recipe names turn out to be, for a form that is being filled in.
struct RecipeFiles {
  struct Problem {
    std::string key, what;  // the recipe's key; what was found there and what was expected
  };
  std::vector<Problem> problems;   // of files that are not there or cannot be read
  bool coded_model = false;        // the model is a checkpoint of codes: it can be quantized only as what they stand for
};

// Opens them: for a worker thread. A model that is there and cannot be opened counts as numbers; whoever opens it says why. Paths as they are.
RecipeFiles look_at_files(const Recipe& recipe);

}  // namespace qb
