#pragma once
#include <string>
#include <vector>

#include "core/recipe/recipe.h"

namespace qb {

// The recipe with keys changed: "scheme.weights.group_size=64", "evaluation[0].windows=20", "name=second try". A value
// that starts with [ { or a quote is YAML, others are taken as they stand; an empty one puts the key back to its default; the
// index after a list's last adds to it. Relative paths are resolved
// against `base`. Throws RecipeError with key, as parse_recipe does.
Recipe with_settings(const Recipe& recipe, const std::vector<std::string>& settings, const std::filesystem::path& base);

}  // namespace qb
