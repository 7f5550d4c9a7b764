#pragma once
#include <cstdint>
#include <vector>

#include "core/measure/evaluation.h"
#include "core/measure/metric_info.h"

namespace qb {

// How single tokens fare under a model and under its reference, in the text's order.
struct TokenDivergences {
  std::vector<double> kl;                  // KL(reference ‖ model), nats
  std::vector<double> nll, reference_nll;  // of the token that came
  std::vector<uint8_t> same_top;
  int64_t tokens_per_window = 0;
};

// The figures of the table, in its order, by the formulas of llama.cpp's --kl-divergence. Standard errors are those of means over tokens;
// "values" are means of windows.
std::vector<Metric> divergence_figures(const TokenDivergences& tokens);
std::vector<MetricInfo> divergence_metrics();

// Of log10 KL by token: 0 and what is below the first bin, as identical predictions are, is counted below.
inline constexpr double kLowestKlDecade = -9, kHighestKlDecade = 2;
inline constexpr int kBinsPerDecade = 10;

}  // namespace qb
