#pragma once
#include <string>
#include <vector>

#include "core/recipe/recipe.h"

namespace qb {

// Recipes in the words of other programs. Torch-free.

struct ExportTarget {
  std::string name;    // "llm-compressor": of --to
  std::string title;   // "llm-compressor 0.14": of which version its arguments are
  std::string ending;  // ".py"
};
const std::vector<ExportTarget>& export_targets();

struct ExportedFile {
  std::string name;    // what tells it from the others: "step_1"; empty: it is the only one
  std::string text;
};
struct RecipeExport {
  std::vector<ExportedFile> files;
  std::vector<std::string> notes;  // what the program cannot say: the key, and what it does instead
};
// Throws RecipeError naming the key where what is left would be another quantization, InputError for an unknown target.
// comments: lines that stand at the top, each behind the program's comment sign.
RecipeExport export_recipe(const Recipe& recipe, const std::string& target, const std::vector<std::string>& comments = {});

// Where the nth file of an export goes: PATH itself where it is the only one, else with its name before the ending.
std::filesystem::path path_of(const ExportedFile& file, const std::filesystem::path& path);

}  // namespace qb
