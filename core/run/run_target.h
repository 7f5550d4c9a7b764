#pragma once
#include <string>
#include <vector>

#include "core/model/model.h"
#include "core/recipe/recipe.h"

namespace qb {

// What the format or the engine that a recipe names as its target does not take of this model under its scheme and pipeline, with
// the nearest that it takes: one sentence for each kind. Empty: all of it, or no target is named.
std::vector<std::string> target_obstacles(const Recipe& recipe, const Model& model);
// What its user should know although it can be exported.
std::vector<std::string> target_notes(const Recipe& recipe, const Model& model);
// All that is worth knowing before a run: of the model, the target, ignore lists, the cache's size.
std::vector<std::string> notes_of(const Recipe& recipe, const Model& model);
// Throws RecipeError with the obstacles.
void require_target(const Recipe& recipe, const Model& model);

}  // namespace qb
