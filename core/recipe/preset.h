#pragma once
#include <optional>
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

// What a preset asks of the machine, least first: arithmetic on the weights; statistics of the calibration text, once; a search over
// settings on top; gradient steps in every block.
enum class PresetCost { rounding, calibration, search, training };
std::string to_text(PresetCost cost);   // "no calibration", "search"
std::string describe(PresetCost cost);  // one sentence
PresetCost cost_of(const Preset& preset);
// Sorted as they are listed: cheap ones first, else by name.
std::vector<Preset> presets_of(const std::string& group, const std::vector<Preset>& all);
// Under which heading it stands, by bits and purpose: "4 bits, weights", "FP8 and FP4". All headings in order: preset_groups().
std::string group_of(const Preset& preset);
const std::vector<std::string>& preset_groups();
// Of the linears that are quantized, scales included, once the preset is fitted to the model; bytes of all linears of its blocks.
struct PresetSize {
  double bits_per_weight = 0, bytes = 0;
  bool at_least = false;  // a method keeps columns or outliers beside the codes, how many a run shows
};
// nullopt where its groups do not divide the model's linears, where a mix gives each linear its own type, and where a method stores
// scales of its own kind.
std::optional<PresetSize> size_of(const Preset& preset, const ModelInfo& model);

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
