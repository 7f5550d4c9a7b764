#pragma once
#include <cstdint>
#include <vector>

namespace qb {

// Equal-width bins over [low, high]; values outside are counted apart.
struct Histogram {
  double low = 0, high = 0;
  std::vector<int64_t> counts;
  int64_t below = 0, above = 0;
  bool empty() const { return counts.empty(); }
};

}  // namespace qb
