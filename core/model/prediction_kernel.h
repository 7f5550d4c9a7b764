#pragma once
#include <cstdint>
#include <limits>

namespace qb {

// What one token's logits, seen tile by tile, tell so far of two models' predictions.
struct RunningComparison {
  float peak = -std::numeric_limits<float>::infinity(), reference_peak = peak;  // largest logits
  int64_t top = 0, reference_top = 0;                                           // where; the first of equal ones
  double sum = 0, reference_sum = 0;  // Σ exp(l − peak), Σ exp(r − reference_peak)
  double difference = 0;              // Σ exp(r − reference_peak) · ((r − reference_peak) − (l − peak))
  float target = 0, reference_target = 0;

  double divergence() const;          // KL(reference ‖ the other), nats
  double negative_log_likelihood() const;
  double reference_negative_log_likelihood() const;
};

// Takes in `count` logits of both, of the vocabulary's rows from `first` on. Not finite logits make not finite figures.
void compare_tile(const float* logits, const float* reference, int64_t count, int64_t first, int64_t target, RunningComparison& running);

}  // namespace qb
