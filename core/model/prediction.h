#pragma once
#include <ATen/ATen.h>

namespace qb {

// What a model predicts of some tokens beside what a reference does; each [tokens] on the CPU.
struct PredictionComparison {
  at::Tensor divergence;                                                // KL(reference ‖ model), nats, float64
  at::Tensor negative_log_likelihood, reference_negative_log_likelihood;  // of the token that came, float64
  at::Tensor same_top;                                                  // whether both find the same token most probable, bool
};

}  // namespace qb
