#pragma once
#include "core/method/method.h"

namespace qb {

// End-to-end tuning: when all blocks are quantized, scales and norms learn from the float model's own predictions
// (Chen et al. 2024, EfficientQAT, arXiv 2407.11062, its second phase; targets: the float model's distributions).
struct TuningOptions {
  int64_t epochs, samples, batch_tokens;  // samples: the first ones, 0 for all
  double rate;
  bool norms;
};
TuningOptions tuning_options(const StageSpec& stage);
// What it costs, in forward passes over all calibration samples: the float model's, and four an epoch (one forward, one
// again for gradients, two of gradients).
double tuning_passes(const TuningOptions& options, int64_t samples);

MethodInfo e2e_tuning_info();
std::unique_ptr<Method> make_e2e_tuning(const StageSpec& stage);

}  // namespace qb
