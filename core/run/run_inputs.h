#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/engine/engine.h"
#include "core/measure/task_files.h"
#include "core/model/model.h"
#include "core/recipe/recipe.h"
#include "core/run/run.h"

namespace qb {

class Tokenizer;

// What an entry of the evaluation list measures on: a text, tokenized once, or a task.
struct RunText {
  std::string name, hash;
  std::vector<int32_t> ids = {};
  Bos bos = Bos::tokenizer;
  std::shared_ptr<const Task> task = {};            // of an evaluator of tasks, whose items are read by
  std::shared_ptr<const Tokenizer> tokenizer = {};  // this
  int64_t task_tokens = 0;                          // of all choices with what stands before them
  // All knobs of the entry, with what the task's own file says.
  std::map<std::string, KnobValue> settings(const EvaluationSpec& spec) const;
  // Windows or items that the evaluation will take, and their tokens.
  double windows(const EvaluationSpec& spec) const;
  double tokens(const EvaluationSpec& spec) const { return task ? static_cast<double>(task_tokens) : windows(spec) * static_cast<double>(spec.seq_len); }
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
