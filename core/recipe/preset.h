#pragma once
#include <string>
#include <vector>

#include "core/recipe/recipe.h"

namespace qb {

// A scheme and a pipeline with a name: what a recipe starts from. Files in resources/presets.
struct Preset {
  std::string name;         // file name without ending: "w4-g64-asym"
  std::string title;        // "4 bits, groups of 64, asymmetric"
  std::string description;  // one sentence: when to choose it
  Scheme scheme;
  std::vector<StageSpec> pipeline;
};

// All presets in name order. Throws RecipeError naming file, line and key of a broken one.
std::vector<Preset> presets();
// Throws InputError naming the nearest ones.
Preset find_preset(const std::string& name);
// Puts the preset's scheme and pipeline into a recipe, and its title as the name when it has none.
void apply(const Preset& preset, Recipe& recipe);

}  // namespace qb
