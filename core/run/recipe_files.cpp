#include "core/run/recipe_files.h"

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/exporting/checkpoint.h"
#include "core/format/imatrix.h"
#include "core/model/model_files.h"
#include "core/run/run_import.h"

namespace qb {
namespace {

bool is_coded(const std::filesystem::path& path) {
  if (path.empty()) return false;
  try {
    return is_coded_checkpoint(path) || (locate_model(path).gguf && !codes_of(*Model::open(path)).empty());
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

RecipeFiles look_at_files(const Recipe& recipe) {
  RecipeFiles files;
  files.coded_model = is_coded(recipe.model);
  if (recipe.importance.empty()) return files;
  std::error_code error;
  if (!std::filesystem::is_regular_file(recipe.importance, error)) {
    files.importance_problem = fmt::format("{}: no such file; expected an importance matrix, as \"qbench imatrix\" or llama.cpp writes it", recipe.importance.string());
    return files;
  }
  try {
    read_imatrix(recipe.importance);
  } catch (const Error& unreadable) {
    files.importance_problem = unreadable.what();
  }
  return files;
}

}  // namespace qb
