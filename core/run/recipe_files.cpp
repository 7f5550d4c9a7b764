#include "core/run/recipe_files.h"

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/exporting/checkpoint.h"
#include "core/format/imatrix.h"
#include "core/measure/evaluators.h"
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
  const auto there = [&](const std::filesystem::path& path, const std::string& key, const char* expected) {
    if (path.empty()) return false;  // which the recipe's own checks tell
    std::error_code error;
    const auto status = std::filesystem::status(path, error);
    if (std::filesystem::exists(status)) return true;
    const bool hidden = error && status.type() != std::filesystem::file_type::not_found;
    files.problems.push_back({key, fmt::format("{}: {}; expected {}", path.string(), hidden ? error.message() : "no such file or folder", expected)});
    return false;
  };
  if (there(recipe.model, "model.path", "a model folder or .gguf file")) files.coded_model = is_coded(recipe.model);
  there(recipe.checkpoint, "checkpoint", "a quantized checkpoint's folder or .gguf file");
  const char* text = "a text file, a .jsonl or .json file, or a folder of them";
  if (recipe.calibration) there(recipe.calibration->corpus.path, "calibration.corpus", text);
  for (size_t i = 0; i < recipe.evaluation.size(); ++i) {
    const EvaluatorInfo* evaluator = find_evaluator(recipe.evaluation[i].evaluator);
    there(recipe.evaluation[i].corpus.path, fmt::format("evaluation[{}].corpus", i), evaluator && evaluator->data == EvaluationData::task ? "a task's .jsonl, .json or .yaml file" : text);
  }
  if (there(recipe.importance, "calibration.importance", "an importance matrix, as \"qbench imatrix\" or llama.cpp writes it")) {
    try {
      read_imatrix(recipe.importance);
    } catch (const Error& unreadable) {
      files.problems.push_back({"calibration.importance", unreadable.what()});
    }
  }
  return files;
}

}  // namespace qb
