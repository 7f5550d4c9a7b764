#pragma once
#include <functional>
#include <map>

#include "core/model/decoder.h"
#include "core/model/rotary.h"

namespace qb {

// Tables by (rope, sequence length), so that a window costs one computation for all blocks.
using RotaryCache = std::map<std::pair<int, int64_t>, RotaryTable>;

// Tokens' ids [tokens] → what a layer (its number in the files) gets of them: TokenInputOp's [tokens, width], dtype as held.
using TokenInputs = std::function<at::Tensor(const at::Tensor& ids, int64_t layer)>;

// Walks a layer's graph on one batch.
class BlockForward {
 public:
  // slopes: ALiBi's, [heads], or undefined. held: dtype of all work inside the block.
  BlockForward(const Architecture& architecture, const Block& weights, const ForwardContext& context, RotaryCache& tables, const at::Tensor& slopes,
               const TokenInputs& token_inputs, at::ScalarType held)
      : a_(architecture), graph_(architecture.layers[static_cast<size_t>(weights.index)].graph), block_(weights), context_(context), rotary_(tables),
        alibi_(slopes), token_inputs_(token_inputs), held_(held) {}

  // [batch, seq, carried width] → the same; with context.stop_at that value, [tokens, width] (undefined where no token makes it), with
  // context.taps_only nothing.
  at::Tensor run(const at::Tensor& hidden);

 private:
  using Tensors = std::vector<at::Tensor>;
  // Each: the operation's inputs → its outputs. What an input holds may be written over where the operation is its last reader.
  Tensors apply(const NormOp& op, const Operation& step, Tensors in);
  Tensors apply(const LinearOp& op, const Operation& step, Tensors in);
  Tensors apply(const RotaryOp& op, const Operation& step, Tensors in);
  Tensors apply(const AttentionOp& op, const Operation& step, Tensors in);
  Tensors apply(const PositionScaleOp& op, const Operation& step, Tensors in);
  Tensors apply(const ClampOp& op, const Operation& step, Tensors in);
  Tensors apply(const JoinOp& op, const Operation& step, Tensors in);
  Tensors apply(const ConcatenateOp& op, const Operation& step, Tensors in);
  Tensors apply(const SplitOp& op, const Operation& step, Tensors in);
  Tensors apply(const ConvolutionOp& op, const Operation& step, Tensors in);
  Tensors apply(const MultiplyOp& op, const Operation& step, Tensors in);
  Tensors apply(const ScaleOp& op, const Operation& step, Tensors in);
  Tensors apply(const ChannelScaleOp& op, const Operation& step, Tensors in);
  Tensors apply(const StreamRouterOp& op, const Operation& step, Tensors in);
  Tensors apply(const PredictOp& op, const Operation& step, Tensors in);
  Tensors apply(const CorrectOp& op, const Operation& step, Tensors in);
  Tensors apply(const TokenInputOp& op, const Operation& step, Tensors in);
  Tensors apply(const SparseGateOp& op, const Operation& step, Tensors in);
  Tensors apply(const SigmoidGateOp& op, const Operation& step, Tensors in);
  Tensors apply(const DeltaRuleOp& op, const Operation& step, Tensors in);
  Tensors apply(const ActivationOp& op, const Operation& step, Tensors in);
  Tensors apply(const GatedOp& op, const Operation& step, Tensors in);
  Tensors apply(const AddOp& op, const Operation& step, Tensors in);
  Tensors apply(const RouterOp& op, const Operation& step, Tensors in);
  Tensors apply(const DispatchOp& op, const Operation& step, Tensors in);
  Tensors apply(const ZeroOp& op, const Operation& step, Tensors in);
  Tensors apply(const CombineOp& op, const Operation& step, Tensors in);
  Tensors apply(const ShareOp& op, const Operation& step, Tensors in);

  at::Tensor made(const GraphValue& value, at::Tensor x) const;  // after its run-time transform, as the context replaces it
  at::Tensor tensor(const std::string& name) const;              // of the block's others; undefined where there is none
  at::Tensor own(const Operation& step, size_t input, at::Tensor x) const;  // x, or a copy where others still read it

  const Architecture& a_;
  const LayerGraph& graph_;
  const Block& block_;
  const ForwardContext& context_;
  RotaryCache& rotary_;
  const at::Tensor& alibi_;
  const TokenInputs& token_inputs_;
  at::ScalarType held_;
  int64_t batch_ = 0, seq_ = 0, first_ = 0;  // first_: position of the first token
};

}  // namespace qb
