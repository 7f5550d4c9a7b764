#include "core/measure/evaluation.h"

#include <algorithm>
#include <limits>

namespace qb {

const Metric* EvaluationResult::find(const std::string& metric) const {
  const auto found = std::find_if(metrics.begin(), metrics.end(), [&](const Metric& other) { return other.name == metric; });
  return found == metrics.end() ? nullptr : &*found;
}

double EvaluationResult::value(const std::string& metric) const {
  const Metric* found = find(metric);
  return found ? found->value : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace qb
