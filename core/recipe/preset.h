#pragma once
#include <string>
#include <vector>

#include "core/model/model_info.h"
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
// Makes a recipe fit a model: a group size that divides its linears, samples and windows that its context takes. Returns what was
// changed, in sentences.
std::vector<std::string> fit(Recipe& recipe, const ModelInfo& model);
// Group sizes that divide all of these numbers of inputs, at most eight and the largest first: multiples of 8 up to 256, which kernels
// know, or any where there are none.
std::vector<int64_t> common_group_sizes(const std::vector<int64_t>& in_features);
// The texts that come with the program, where a recipe has none yet: what is made of it then calibrates and measures. Lengths suit
// small models and short contexts.
void add_bundled_texts(Recipe& recipe);

}  // namespace qb
