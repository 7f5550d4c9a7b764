#include "core/store/pareto.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "core/measure/paired.h"

namespace qb {
namespace {

// Which evaluation a column is of, and the metric whose values by window or item are paired.
struct Paired {
  const char *key, *evaluator, *metric;
};
constexpr Paired kPaired[] = {{"ppl", "perplexity", "nll"}, {"kl", "divergence", "kl"}, {"acc", "task", "acc"}, {"acc_norm", "task", "acc_norm"}};

const Paired* paired_of(const RunColumn& column) {
  const auto found = std::find_if(std::begin(kPaired), std::end(kPaired), [&](const Paired& p) { return column.key == p.key; });
  return found == std::end(kPaired) ? nullptr : found;
}

double figure_of(const RunReport& run, const RunColumn& measure) {
  const RunValue value = measure.value(run, nullptr);
  const double* number = std::get_if<double>(&value);
  return number ? *number : std::nan("");
}

bool comparable(const RunReport& a, const RunReport& b, const RunColumn& measure) {
  const Paired* paired = paired_of(measure);
  if (!paired) return true;
  const EvaluationResult *first = find_evaluation(a, paired->evaluator, false), *second = find_evaluation(b, paired->evaluator, false);
  return first && second && same_conditions(*first, *second);
}

// Second − first, window by window or item by item.
std::optional<PairedDifference> paired(const RunReport& first, const RunReport& second, const RunColumn& measure) {
  const Paired* pair = paired_of(measure);
  if (!pair) return std::nullopt;
  const EvaluationResult *of_first = find_evaluation(first, pair->evaluator, false), *of_second = find_evaluation(second, pair->evaluator, false);
  if (!of_first || !of_second || of_first->values(pair->metric).empty() || of_first->values(pair->metric).size() != of_second->values(pair->metric).size()) return std::nullopt;
  return paired_difference(of_first->values(pair->metric), of_second->values(pair->metric));
}

bool beats(const RunReport& a, const RunReport& b, const std::vector<const RunColumn*>& measures) {
  bool once = false;
  for (const RunColumn* measure : measures) {
    const int way = better(a, b, *measure);
    if (way > 0) return false;
    once = once || way < 0;
  }
  return once;
}

}  // namespace

int better(const RunReport& first, const RunReport& second, const RunColumn& measure) {
  const double a = figure_of(first, measure), b = figure_of(second, measure);
  const int sign = measure.higher_is_better ? -1 : 1;
  if (const auto d = paired(second, first, measure)) {
    if (std::abs(d->difference) <= 2 * d->standard_error) return 0;
    return d->difference * sign < 0 ? -1 : 1;
  }
  return a == b ? 0 : (a - b) * sign < 0 ? -1 : 1;
}

std::optional<double> paired_error(const RunReport& first, const RunReport& second, const RunColumn& measure) {
  if (!comparable(first, second, measure)) return std::nullopt;
  const auto d = paired(first, second, measure);
  if (!d || d->items < 2) return std::nullopt;
  return d->standard_error * (measure.key == "ppl" ? figure_of(second, measure) : 1);
}

std::vector<ParetoRun> pareto(const std::vector<const RunReport*>& runs, const std::vector<const RunColumn*>& measures) {
  for (const RunColumn* measure : measures)
    if (measure->kind != RunColumnKind::figure) throw InputError(fmt::format("{} is no figure that runs can be compared by", measure->key));
  std::vector<ParetoRun> found;
  for (const RunReport* run : runs) {
    if (!found.empty() && run->model_hash != found.front().run->model_hash)
      throw InputError(fmt::format("run {} is of {}, {} of {}; expected runs of one model", found.front().run->id, found.front().run->model_name, run->id, run->model_name));
    ParetoRun one{run, {}, true, nullptr};
    bool whole = true;
    for (const RunColumn* measure : measures) {
      one.values.push_back(figure_of(*run, *measure));
      whole = whole && std::isfinite(one.values.back()) && (found.empty() || comparable(*found.front().run, *run, *measure));
    }
    if (whole) found.push_back(std::move(one));
  }
  for (ParetoRun& one : found)
    for (const ParetoRun& other : found) {
      if (&one == &other || !beats(*other.run, *one.run, measures)) continue;
      one.front = false;
      if (!one.beaten_by || beats(*other.run, *one.beaten_by, measures)) one.beaten_by = other.run;
    }
  return found;
}

const ParetoRun* recommended(const std::vector<ParetoRun>& runs, const std::vector<const RunColumn*>& measures) {
  std::vector<const ParetoRun*> left;
  for (const ParetoRun& run : runs)
    if (run.front) left.push_back(&run);
  for (size_t m = 0; m < measures.size() && left.size() > 1; ++m) {
    const auto first = *std::min_element(left.begin(), left.end(), [&](const auto* a, const auto* b) { return measures[m]->higher_is_better ? a->values[m] > b->values[m] : a->values[m] < b->values[m]; });
    std::erase_if(left, [&](const ParetoRun* run) { return run != first && better(*first->run, *run->run, *measures[m]) < 0; });
  }
  return left.empty() ? nullptr : left.front();
}

}  // namespace qb
