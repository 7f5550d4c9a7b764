#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <string>

#include "core/base/control.h"

namespace qb {

// Where the grid of a linear's weights ends in a finished run: what clipping, or the rounding itself, left of their range. Torch-free.
struct ClipRanges {
  std::string module, scheme;
  int64_t units = 0;                                            // groups, channels … with a scale each
  static constexpr std::array<double, 5> kShares = {0, 0.05, 0.5, 0.95, 1};
  std::array<double, 5> low{}, high{};                          // of the units' lowest and highest values: quantiles at kShares
  double beyond = 0;                                            // share of the weights that lie more than half a step beyond their unit's ends
  int64_t cut = 0;                                              // units that have such weights
};

// Of one linear, "model.layers.0.self_attn.q_proj", in the coordinates that transformations chose; weights that are kept beside the codes do not
// count. run: a run's folder. Throws InputError where it is not finished, or the linear is not in codes.
ClipRanges clip_ranges(const std::filesystem::path& run, const std::string& module, const Control& control = {});

}  // namespace qb
