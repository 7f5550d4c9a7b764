#include "core/measure/evaluation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <limits>

#include "core/measure/evaluators.h"

namespace qb {

const Metric* EvaluationResult::find(const std::string& metric) const {
  const auto found = std::find_if(metrics.begin(), metrics.end(), [&](const Metric& other) { return other.name == metric; });
  return found == metrics.end() ? nullptr : &*found;
}

double EvaluationResult::value(const std::string& metric) const {
  const Metric* found = find(metric);
  return found ? found->value : std::numeric_limits<double>::quiet_NaN();
}

double EvaluationResult::error(const std::string& metric) const {
  const Metric* found = find(metric);
  return found ? found->standard_error : std::numeric_limits<double>::quiet_NaN();
}

const std::vector<double>& EvaluationResult::values(const std::string& metric) const {
  static const std::vector<double> none;
  const Metric* found = find(metric);
  return found ? found->values : none;
}

void EvaluationResult::put(Metric metric) {
  for (Metric& other : metrics)
    if (other.name == metric.name) {
      other = std::move(metric);
      return;
    }
  metrics.push_back(std::move(metric));
}

std::string bos_text(const EvaluationResult& result) {
  return result.bos == "every_window" ? ", BOS in every window" : result.bos == "none" ? ", no BOS" : "";
}

std::string settings_text(const EvaluationResult& result) {
  const EvaluatorInfo* evaluator = find_evaluator(result.evaluator);
  std::string text;
  for (const auto& [name, value] : result.settings) {
    const KnobInfo* knob = evaluator ? find_knob(*evaluator, name) : nullptr;
    if (!knob || value != knob->default_value) text += fmt::format(", {} {}", knob ? knob->title : name, to_text(value));
  }
  return text;
}

std::string conditions_text(const EvaluationResult& result) {
  const std::string what = result.seq_len > 0 ? fmt::format("{} windows of {} tokens", result.windows, result.seq_len) : fmt::format("{} items", result.windows);
  return fmt::format("{}, {}, {}{}{}", result.corpus, what, result.dtype, bos_text(result), settings_text(result));
}

std::string value_text(const EvaluationResult& result, const Metric& metric) {
  const MetricInfo* info = find_metric(result.evaluator, metric.name);
  const bool large = std::abs(metric.value) >= 1 || metric.value == 0;
  std::string text = large ? fmt::format("{:.4f}", metric.value) : fmt::format("{:.4g}", metric.value);
  if (metric.standard_error != 0) text += large ? fmt::format(" ± {:.4f}", metric.standard_error) : fmt::format(" ± {:.2g}", metric.standard_error);
  return info && !info->unit.empty() ? text + " " + info->unit : text;
}

std::string figure_text(const EvaluationResult& result) {
  if (result.metrics.empty()) return "no figure";
  const Metric& metric = result.metrics.front();
  const MetricInfo* info = find_metric(result.evaluator, metric.name);
  std::string title = info ? info->title : metric.name;
  // An abbreviation keeps its capitals.
  if (title.size() > 1 && !std::isupper(static_cast<unsigned char>(title[1]))) title[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(title[0])));
  return title + " " + value_text(result, metric);
}

std::string subject_text(const EvaluationResult& result) {
  if (!result.float_model) return "quantized model";
  const EvaluatorInfo* evaluator = find_evaluator(result.evaluator);
  return evaluator && evaluator->against_float ? "noise floor" : "float model";
}

bool same_conditions(const EvaluationResult& a, const EvaluationResult& b) {
  return a.evaluator == b.evaluator && a.corpus_hash == b.corpus_hash && a.seq_len == b.seq_len && a.windows == b.windows && a.dtype == b.dtype && bos_text(a) == bos_text(b) &&
         a.settings == b.settings;
}

}  // namespace qb
