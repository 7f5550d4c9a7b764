#include "core/model/prediction_kernel.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/base/cpu_clones.h"

namespace qb {
namespace {

constexpr int64_t kLanes = 16;  // independent sums

// e^x for x ≤ 0, to about a unit of the last place: 2ⁿ · e^r with |r| ≤ ln 2 / 2, by Taylor's series. Below −86 as −86: nothing beside a
// sum of at least 1. NaN stays NaN.
inline float exponential(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 · 2²³: added, it leaves a whole number in the low bits
  const float y = x < -86.0f ? -86.0f : x;
  const float shifted = y * 1.44269504f + kRound, n = shifted - kRound;
  const float r = (y - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts, the first exact in products with n
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(p) + (std::bit_cast<uint32_t>(shifted) << 23));
}

// Double: beside a weight of 1 a thousand small ones would each lose their last digits, and divergences are differences of such sums.
struct Lanes {
  double sum[kLanes] = {}, reference_sum[kLanes] = {}, difference[kLanes] = {};
};

inline void add(Lanes& lanes, const float* logits, const float* reference, float peak, float reference_peak, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const float l = logits[i] - peak, r = reference[i] - reference_peak, weight = exponential(r);
    lanes.sum[i] += static_cast<double>(exponential(l));
    lanes.reference_sum[i] += static_cast<double>(weight);
    lanes.difference[i] += static_cast<double>(weight * (r - l));
  }
}

inline float largest(const float* x, int64_t count) {
  float peaks[kLanes];
  for (float& peak : peaks) peak = -std::numeric_limits<float>::infinity();
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes)
    for (int64_t l = 0; l < kLanes; ++l) peaks[l] = peaks[l] < x[i + l] ? x[i + l] : peaks[l];
  float all = peaks[0];
  for (float peak : peaks) all = std::max(all, peak);
  for (int64_t i = whole; i < count; ++i) all = std::max(all, x[i]);
  return all;
}

// A new peak, if this tile has one; the sums so far are then relative to it. How far the peak moved.
inline double raise(const float* x, int64_t count, int64_t first, float& peak, int64_t& top, double& sum) {
  const float found = largest(x, count);
  if (!(found > peak)) return 0;
  const double moved = sum == 0 ? 0 : static_cast<double>(found) - static_cast<double>(peak);
  sum *= std::exp(-moved);
  peak = found;
  top = first + (std::find(x, x + count, found) - x);
  return moved;
}

}  // namespace

double RunningComparison::divergence() const { return difference / reference_sum - std::log(reference_sum) + std::log(sum); }

double RunningComparison::negative_log_likelihood() const { return static_cast<double>(peak) - static_cast<double>(target) + std::log(sum); }

double RunningComparison::reference_negative_log_likelihood() const {
  return static_cast<double>(reference_peak) - static_cast<double>(reference_target) + std::log(reference_sum);
}

QB_CPU_CLONES void compare_tile(const float* logits, const float* reference, int64_t count, int64_t first, int64_t target, RunningComparison& running) {
  const double moved = raise(logits, count, first, running.peak, running.top, running.sum);
  const double before = running.reference_sum;
  const double reference_moved = raise(reference, count, first, running.reference_peak, running.reference_top, running.reference_sum);
  if (before != 0) running.difference = running.difference * (running.reference_sum / before) + running.reference_sum * (moved - reference_moved);

  Lanes lanes;
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) add(lanes, logits + i, reference + i, running.peak, running.reference_peak, kLanes);
  add(lanes, logits + whole, reference + whole, running.peak, running.reference_peak, count - whole);
  for (int64_t l = 0; l < kLanes; ++l) {
    running.sum += lanes.sum[l];
    running.reference_sum += lanes.reference_sum[l];
    running.difference += lanes.difference[l];
  }
  if (target >= first && target < first + count) {
    running.target = logits[target - first];
    running.reference_target = reference[target - first];
  }
}

}  // namespace qb
