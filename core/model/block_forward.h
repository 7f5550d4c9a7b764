#pragma once
#include <map>

#include "core/model/decoder.h"
#include "core/model/rotary.h"

namespace qb {

// Tables by (rope, sequence length), so that a window costs one computation for all blocks.
using RotaryCache = std::map<std::pair<int, int64_t>, RotaryTable>;

// One decoder block on one batch, as the architecture describes it.
class BlockForward {
 public:
  // slopes: ALiBi's, [heads], or undefined. held: dtype of all work inside the block.
  BlockForward(const Architecture& architecture, const Block& weights, const LinearTap& linear_tap, RotaryCache& tables,
               const at::Tensor& slopes, at::ScalarType held)
      : a_(architecture), block_(weights), tap_(linear_tap), rotary_(tables), alibi_(slopes), held_(held) {}

  at::Tensor run(const at::Tensor& hidden);  // [batch, seq, hidden] → the same

 private:
  const Architecture& a_;
  const Block& block_;
  const LinearTap& tap_;
  RotaryCache& rotary_;
  const at::Tensor& alibi_;
  at::ScalarType held_;
  int64_t batch_ = 0, seq_ = 0;

  const Linear& linear_of(LinearRole role) const;
  at::Tensor multiply(const Linear& linear, const at::Tensor& x) const;  // x: [tokens, in]
  const at::Tensor* other(const std::string& name) const;
  at::Tensor norm(const std::string& name, const at::Tensor& x) const;
  at::Tensor norm_heads(at::Tensor x, const std::string& name) const;
  at::Tensor attend(const at::Tensor& x) const;
  at::Tensor dense_mlp(const at::Tensor& x) const;
  at::Tensor gated(const Linear& gate, const Linear& up, const Linear& down, const at::Tensor& x) const;
  at::Tensor mixture(const at::Tensor& x) const;
  at::Tensor mlp(const at::Tensor& x) const;
};

}  // namespace qb
