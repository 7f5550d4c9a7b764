#pragma once
#include <optional>
#include <string>
#include <vector>

#include "core/method/transformation/scale_group.h"

namespace qb {

// What rounding the readers of a scale group does to the output of the smallest module around them: up to the first linear that
// all of them flow into (the attention for q, k, v; the MLP for gate and up), else of the whole block.
class ModuleOutput {
 public:
  // Runs on `samples` calibration samples, evenly spread (0: on all). Needs Statistic::block_io, and work.block as the stages
  // before have made it (use_current_weights). work and group must outlive it.
  ModuleOutput(const BlockWork& work, const ScaleGroup& group, int64_t samples);
  // Squared difference, summed, when the readers are multiplied by scale [in], rounded, and divided by it again.
  double error(const at::Tensor& scale) const;

 private:
  at::Tensor run(const Block& block, const at::Tensor& input, const LinearTap& tap) const;

  const BlockWork& work_;
  const ScaleGroup& group_;
  std::optional<size_t> last_;  // the linear that ends the module; its input tells the module's output. Nothing: the block's output
  std::vector<at::Tensor> inputs_, float_;  // of the block; what run() makes of them
};

}  // namespace qb
