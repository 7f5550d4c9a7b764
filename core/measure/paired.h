#pragma once
#include <cstdint>
#include <vector>

namespace qb {

// Two results on the same items, item by item: what both share (hard items, easy ones) falls out, so that far smaller
// differences show than between two figures with errors of their own.
struct PairedDifference {
  int64_t items = 0;
  double difference = 0;      // mean of second − first
  double standard_error = 0;  // √(Σ(d − d̄)² / (n − 1) / n); 0 with fewer than two items
};

// McNemar's test of right and wrong answers: only items that exactly one of the two gets right tell.
struct McNemar {
  int64_t both = 0, only_first = 0, only_second = 0, neither = 0;
  bool exact = true;   // two-sided binomial, with fewer than 25 such items; else χ² with Edwards' continuity correction
  double statistic = 0;  // the smaller of the two counts, or χ²
  double p_value = 1;    // how likely so uneven counts are if both were equally good
};

// Throws InternalError for lists of different lengths.
PairedDifference paired_difference(const std::vector<double>& first, const std::vector<double>& second);
McNemar mcnemar(const std::vector<double>& first, const std::vector<double>& second);  // 1: right, 0: wrong

}  // namespace qb
