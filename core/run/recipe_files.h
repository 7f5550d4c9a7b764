#pragma once
#include <string>

#include "core/recipe/recipe.h"

namespace qb {

// What the files that a recipe names turn out to be, for a form that is being filled in.
struct RecipeFiles {
  std::string importance_problem;  // why the importance matrix cannot be read; empty: it can, or none is named
  bool coded_model = false;        // the model is a checkpoint of codes: it can be quantized only as what they stand for
};

// Opens them: for a worker thread. A model that cannot be opened counts as numbers; whoever opens it says why. Paths as they are.
RecipeFiles look_at_files(const Recipe& recipe);

}  // namespace qb
