#include "core/measure/distribution_kernel.h"

#include <algorithm>
#include <cmath>

#include "core/base/cpu_clones.h"

namespace qb {
namespace {

constexpr int64_t kLanes = 16;   // independent sums: one would wait for its own last addition
constexpr int64_t kSlots = 256;  // found at once, then counted

struct Lanes {
  double sum[kLanes] = {}, squares[kLanes] = {}, cubes[kLanes] = {}, fourths[kLanes] = {};
  float peak[kLanes] = {};
};

inline void add(Lanes& lanes, const float* x, int64_t count) {
  for (int64_t l = 0; l < count; ++l) {
    const double value = static_cast<double>(x[l]), square = value * value;
    lanes.sum[l] += value;
    lanes.squares[l] += square;
    lanes.cubes[l] += square * value;
    lanes.fourths[l] += square * square;
    lanes.peak[l] = std::max(lanes.peak[l], std::fabs(x[l]));
  }
}

}  // namespace

QB_CPU_CLONES PartialMoments partial_moments(const float* x, int64_t count) {
  Lanes lanes;
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) add(lanes, x + i, kLanes);
  add(lanes, x + whole, count - whole);
  PartialMoments all;
  for (int64_t l = 0; l < kLanes; ++l) {
    all.sum += lanes.sum[l];
    all.squares += lanes.squares[l];
    all.cubes += lanes.cubes[l];
    all.fourths += lanes.fourths[l];
    all.peak = std::max(all.peak, lanes.peak[l]);
  }
  return all;
}

QB_CPU_CLONES void count_slots(const float* x, int64_t count, double low, double high, int bins, int64_t* slots) {
  const double per_bin = bins / (high - low), last = bins - 1;
  int32_t slot[kSlots];
  for (int64_t begin = 0; begin < count; begin += kSlots) {
    const int64_t n = std::min(kSlots, count - begin);
    for (int64_t i = 0; i < n; ++i) {
      const double value = static_cast<double>(x[begin + i]), place = (value - low) * per_bin;
      // In this order a comparison with NaN gives the first slot, which is then replaced.
      const int32_t inside = static_cast<int32_t>(std::min(last, std::max(0.0, place))) + 1;
      slot[i] = value < low ? 0 : value > high ? bins + 1 : value == value ? inside : bins + 2;
    }
    for (int64_t i = 0; i < n; ++i) ++slots[slot[i]];
  }
}

}  // namespace qb
