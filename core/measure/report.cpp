#include "core/measure/report.h"

#include <algorithm>

namespace qb {

const EvaluationResult* find_evaluation(const RunReport& run, const std::string& evaluator, bool float_model) {
  const auto found = std::find_if(run.evaluations.begin(), run.evaluations.end(), [&](const EvaluationResult& e) { return e.evaluator == evaluator && e.float_model == float_model; });
  return found == run.evaluations.end() ? nullptr : &*found;
}

}  // namespace qb
