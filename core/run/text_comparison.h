#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/base/control.h"
#include "core/recipe/recipe.h"
#include "core/text/token_profile.h"

namespace qb {

// Is the calibration text like the use? Texts by a model's tokens, the first beside the others. Torch-free.

// A run of tokens of one text that stands in the first text too, as it reads.
struct SharedPassage {
  std::string text;
  int64_t tokens = 0;
};
struct ComparedText {
  std::string name;
  std::string role;             // "calibration", an evaluator's name, or empty: a file
  std::string pieces;           // what its lengths are of: "samples", "windows", "items", "documents"
  TokenProfile profile;
  TokenComparison against_first;           // of all but the first
  double halves = 0;            // jensen_shannon between its own alternate stretches: what "alike" comes to for such a text; NaN: it is too short
  std::vector<SharedPassage> shared = {};  // the longest, at most 5
};
struct TextComparison {
  std::string model;            // whose tokenizer reads them
  int64_t vocabulary = 0;
  std::vector<ComparedText> texts;
  std::map<int32_t, std::string> tokens;   // of every token that occurs, as the vocabulary spells it ("Ġthe")
  std::vector<std::string> notes;          // of how they were read
};

// A recipe's calibration text as it is sampled, beside its evaluation texts as they are cut, its tasks (items with their right answers), and
// other files. Throws RecipeError or InputError naming what is missing.
TextComparison compare_texts(const Recipe& recipe, const std::vector<std::filesystem::path>& others = {}, const Control& control = {});
// Files by a model's tokenizer, the first beside the others.
TextComparison compare_texts(const std::filesystem::path& model, const std::vector<std::filesystem::path>& files, const std::string& field = "text", const Control& control = {});

}  // namespace qb
