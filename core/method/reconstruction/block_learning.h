#pragma once
#include <functional>
#include <vector>

#include "core/method/method.h"

namespace qb {

// round(x) whose gradient is that of x (straight-through).
at::Tensor round_through(const at::Tensor& x);

// A weight that is rounded on a grid that can be learned, with the shift of the rounding too.
// value(): ŵ = (clamp(round(w/s + shift + z)) − z)·s, s and z from [low·low_share, high·high_share], differentiable in
// weight, shift, low_share and high_share. Integer types only.
struct LearnedRounding {
  QuantSpec spec;
  at::Tensor weight;      // [out, in]
  at::Tensor low, high;   // per unit [units, 1], as min_max has them
  at::Tensor low_share, high_share;  // per unit, 1: the whole range
  at::Tensor shift;       // [units, elements] in [−½, ½], or undefined
  at::Tensor kept;        // [units, elements]: 0 where a pruned weight stays zero, whatever its shift; undefined: all are kept
  at::Tensor value() const;
  QuantizedWeight quantized() const;
};
// Why a rounding like this cannot be learned; empty when it can, or nothing is rounded.
std::string learned_rounding_problem(const std::optional<QuantSpec>& spec);
LearnedRounding learned_rounding(const LinearWork& linear);

// A norm's weight or bias in block.others. plus_one: of a norm that multiplies by 1 + weight.
struct NormTensor {
  std::string name;
  bool plus_one = false;
};
// Of all norms over whole vectors in a layer.
std::vector<NormTensor> norm_tensors(const Block& block, const LayerGraph& graph);

// x as the tap replaces it, with the gradient of x.
LinearTap straight_through(const LinearTap& tap);
CacheTap straight_through(const CacheTap& tap);

// A value as it is stored in a coarser type, with the gradient of the exact one.
at::Tensor stored_through(const at::Tensor& x, ScaleType type);

// Learns on the block's output: draws samples, runs the block with the weights that a caller has put into it, and hands
// the loss back.
class BlockLearning {
 public:
  explicit BlockLearning(BlockWork& work);  // needs Statistic::block_io
  // Mean squared difference from the float block's output on `count` random samples of one calibration batch.
  // float_path: from what the float model itself has there, instead of the float block on this run's inputs.
  at::Tensor loss(int64_t count, bool float_path);
  // The same over all samples, without gradients.
  double full_loss(bool float_path);
  // Steps that see every sample once on average.
  int64_t steps_an_epoch(int64_t count) const;

 private:
  at::Tensor difference(const at::Tensor& input, const at::Tensor& target) const;
  BlockWork& work_;
  LinearTap tap_;
  CacheTap cache_tap_;
  uint64_t state_;
};

// While it lives, the block's weights may be replaced by learned ones; then they are what they were.
class WeightsAside {
 public:
  explicit WeightsAside(Block& block) : block_(block), kept_(block) {}
  ~WeightsAside() { block_ = kept_; }
  WeightsAside(const WeightsAside&) = delete;
  WeightsAside& operator=(const WeightsAside&) = delete;

 private:
  Block& block_;
  Block kept_;
};

}  // namespace qb
