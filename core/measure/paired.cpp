#include "core/measure/paired.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/base/error.h"

namespace qb {
namespace {

constexpr int64_t kExactBelow = 25;  // discordant items: the rule of thumb for χ²'s approximation (McNemar 1947; Edwards 1948 for the correction)

void require_same(const std::vector<double>& first, const std::vector<double>& second) {
  if (first.size() != second.size()) throw InternalError(fmt::format("{} items compared with {}", first.size(), second.size()));
}

// Σ_{i ≤ k} C(n, i) / 2ⁿ.
double binomial_tail(int64_t k, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i <= k; ++i) sum += std::exp(std::lgamma(n + 1.0) - std::lgamma(i + 1.0) - std::lgamma(n - i + 1.0) - static_cast<double>(n) * std::log(2.0));
  return sum;
}

}  // namespace

PairedDifference paired_difference(const std::vector<double>& first, const std::vector<double>& second) {
  require_same(first, second);
  PairedDifference result;
  result.items = static_cast<int64_t>(first.size());
  const auto n = static_cast<double>(first.size());
  for (size_t i = 0; i < first.size(); ++i) result.difference += (second[i] - first[i]) / n;
  double squares = 0;
  for (size_t i = 0; i < first.size(); ++i) squares += std::pow(second[i] - first[i] - result.difference, 2);
  if (n > 1) result.standard_error = std::sqrt(squares / (n - 1) / n);
  return result;
}

McNemar mcnemar(const std::vector<double>& first, const std::vector<double>& second) {
  require_same(first, second);
  McNemar result;
  for (size_t i = 0; i < first.size(); ++i) {
    const bool a = first[i] > 0.5, b = second[i] > 0.5;
    ++(a ? (b ? result.both : result.only_first) : (b ? result.only_second : result.neither));
  }
  const int64_t told = result.only_first + result.only_second, fewer = std::min(result.only_first, result.only_second);
  result.exact = told < kExactBelow;
  if (result.exact) {
    result.statistic = static_cast<double>(fewer);
    result.p_value = std::min(1.0, 2 * binomial_tail(fewer, told));
  } else {
    const double apart = std::max(0.0, static_cast<double>(std::abs(result.only_first - result.only_second)) - 1);
    result.statistic = apart * apart / static_cast<double>(told);
    result.p_value = std::erfc(std::sqrt(result.statistic / 2));  // of χ² with one degree of freedom
  }
  return result;
}

}  // namespace qb
