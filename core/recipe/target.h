#pragma once
#include <string>
#include <vector>

#include "core/recipe/recipe.h"

namespace qb {

// What a recipe leaves to its target: in what scales of weights are stored. model_dtype: as ModelInfo has it.

// In which the target's engines do best to multiply integer weights by their scales: the model's own type, which compressed-tensors'
// engines use whatever is stored, and beside which MLX's products become wider. Nothing: in the type that they are stored in.
std::optional<ScaleType> computed_scale_type(const Recipe& recipe, const std::string& model_dtype);
// The integer weights that this is about.
std::vector<const QuantSpec*> scaled_weights(const Recipe& recipe);
// What the target chooses; nothing: the recipe names its scale types, or the target has no say.
std::optional<ScaleType> chosen_scale_type(const Recipe& recipe, const std::string& model_dtype);
// The recipe with that filled in; what no target chooses is float16.
Recipe for_target(Recipe recipe, const std::string& model_dtype);

}  // namespace qb
