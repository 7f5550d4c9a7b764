#pragma once
#include <cstdint>

namespace qb {

struct PartialMoments {
  double sum = 0, squares = 0, cubes = 0, fourths = 0;
  float peak = 0;  // NaN is passed by
};

PartialMoments partial_moments(const float* x, int64_t count);

// Adds to slots [bins + 3]: below low, the bins, above high, NaN.
void count_slots(const float* x, int64_t count, double low, double high, int bins, int64_t* slots);

}  // namespace qb
