#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/engine/engine.h"
#include "core/model/model.h"
#include "core/recipe/recipe.h"
#include "core/run/run.h"

namespace qb {

// An evaluation text, tokenized once.
struct RunText {
  std::string name, hash;
  std::vector<int32_t> ids = {};
  Bos bos = Bos::tokenizer;
  // Windows that the evaluation will take.
  double windows(const EvaluationSpec& spec) const;
};

// What a recipe names, opened.
struct RunInputs {
  std::shared_ptr<const Model> model;   // the float model; of a checkpoint without its original the checkpoint's
  std::shared_ptr<const QuantizedModel> checkpoint;  // of a recipe that names one
  std::string checkpoint_hash;
  std::string model_hash;
  TokenSet calibration;          // empty without a calibration text
  std::shared_ptr<const ImportanceMatrix> importance;  // of a recipe that names one
  std::string importance_hash;
  std::vector<RunText> texts;    // one per evaluation
  std::vector<std::string> notes;  // of how tokenizer and texts were read
};

// The model that a recipe is of. Throws InputError where it is a quantized one and the recipe does not ask for what its codes stand for.
std::shared_ptr<const Model> open_model(const Recipe& recipe);
// Opens the model, tokenizes calibration and evaluation text. Throws InputError for what is missing, too short or too long.
RunInputs load_inputs(const Recipe& recipe, const Control& control);
EngineJob make_job(const Recipe& recipe, const RunInputs& inputs, const RunOptions& options, const std::filesystem::path& folder);

}  // namespace qb
