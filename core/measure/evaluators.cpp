#include "core/measure/evaluators.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "core/measure/divergence.h"
#include "core/measure/task.h"

namespace qb {
namespace {

std::vector<MetricInfo> perplexity_metrics() {
  return {
      {"perplexity", "Perplexity", "", false, "exp of the mean negative log-likelihood over windows; its error from the spread of window means"},
      {"nll", "Negative log-likelihood", "nats/token", false, "mean over windows of the mean cross-entropy of their seq_len − 1 shifted tokens"},
  };
}

std::vector<MetricInfo> with_floor(std::vector<MetricInfo> metrics) {
  metrics.push_back({kWeightsFloor, "KL of bfloat16 weights", "nats", false, "the float model's with its weights rounded to bfloat16: a noise floor, 0 where they are stored so"});
  return metrics;
}

template <class List>
auto found(const List& list, const std::string& name) {
  const auto at = std::find_if(list.begin(), list.end(), [&](const auto& entry) { return entry.name == name; });
  return at == list.end() ? nullptr : &*at;
}

}  // namespace

const std::vector<EvaluatorInfo>& evaluators() {
  static const std::vector<EvaluatorInfo> table = {
      {"perplexity", "Perplexity", "How well the model foretells a text", EvaluationData::text, false, {}, perplexity_metrics(), {"perplexity"}},
      {"divergence", "Divergence", "How far its predictions are from the float model's, token by token", EvaluationData::text, true, divergence_knobs(), with_floor(divergence_metrics()), {"kl", "kl_p99", "same_top"}},
      {"task", "Multiple choice", "How often the likeliest choice of a task's items is right", EvaluationData::task, false, task_knobs(), task_metrics(), {"acc", "acc_norm"}},
  };
  return table;
}

const EvaluatorInfo* find_evaluator(const std::string& name) { return found(evaluators(), name); }

std::string unknown_evaluator(const std::string& wrong) {
  std::vector<std::string> names;
  for (const EvaluatorInfo& info : evaluators()) names.push_back(info.name);
  const auto near = similar_names(wrong, names);
  return near.empty() ? fmt::format("there is no evaluator \"{}\"; expected {}", wrong, fmt::join(names, ", ")) : fmt::format("there is no evaluator \"{}\"; did you mean \"{}\"?", wrong, near.front());
}

const KnobInfo* find_knob(const EvaluatorInfo& evaluator, const std::string& name) { return found(evaluator.knobs, name); }

const MetricInfo* find_metric(const std::string& evaluator, const std::string& metric) {
  const EvaluatorInfo* info = find_evaluator(evaluator);
  return info ? found(info->metrics, metric) : nullptr;
}

}  // namespace qb
