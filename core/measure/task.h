#pragma once
#include "core/base/control.h"
#include "core/measure/continuations.h"
#include "core/measure/evaluation.h"
#include "core/measure/metric_info.h"
#include "core/measure/task_files.h"
#include "core/quant/quantized_model.h"

namespace qb {

class Tokenizer;

// What a model thinks of one item.
struct TaskAnswer {
  std::string where;
  int64_t gold = 0;
  std::vector<double> log_probabilities;  // Σ log p of each choice's tokens
  int64_t chosen = 0, chosen_norm = 0, chosen_bytes = 0;  // likeliest as it is, by character, by byte; the first of equals
};

struct TaskResult {
  EvaluationResult evaluation;      // acc, acc_norm, acc_bytes; each with 1 or 0 an item
  std::vector<TaskAnswer> answers;  // in the order of the file
};

std::vector<KnobInfo> task_knobs();
std::vector<MetricInfo> task_metrics();

// The tokens of every choice of every item, as lm-evaluation-harness makes them: spaces that end a context begin its
// continuation; a context is tokenized with the tokenizer's own special tokens, and once more with its continuation, whose
// tokens are what is longer; an empty context is BOS (else EOS); what passes `longest` (0: nothing does) is cut from the left.
// Throws InputError naming the item.
std::vector<Continuation> task_continuations(const Task& task, const Tokenizer& tokenizer, int64_t longest);

// Whether inputs, keys and values of a quantized model are rounded token by token, so that sequences may share a pass.
bool rounds_by_token(const QuantizedModel& model);
bool rounds_by_token(const Scheme& scheme);

// Accuracy of the likeliest choice, with sample standard errors as lm-evaluation-harness 0.4.13 defines them.
TaskResult evaluate_task(std::shared_ptr<const Model> model, TensorSourcePtr source, const Tokenizer& tokenizer, const Task& task,
                         const ContinuationSpec& spec, const Control& control = {});

}  // namespace qb
