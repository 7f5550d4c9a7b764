#pragma once
#include <ATen/ATen.h>

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base/control.h"
#include "core/engine/hidden_states.h"
#include "core/model/decoder.h"

namespace qb {

// What gradients are taken of: of the divergence from what the model itself predicts (drawn; their products are on average the curvature), or
// of the cross-entropy of the text.
enum class EndLoss { none, kl, cross_entropy };  // none: no gradients
std::string to_text(EndLoss loss);
std::optional<EndLoss> parse_end_loss(const std::string& text);

// The gradient by what a linear made of these rows of its weight.
struct LinearGradient {
  size_t linear = 0;
  Rows rows;
  at::Tensor values;  // [tokens that it saw, rows.width()]
};

// What a backward pass through one block tells.
struct BlockGradients {
  at::Tensor by_input;                      // [samples, seq, carried width]
  std::vector<LinearGradient> linears;      // those that the loss depends on
  std::map<ValueId, at::Tensor> values;     // what linears read [tokens that came there, width], and which tokens came to experts (DispatchOp)
};

// Σ over rows of a linear's squared gradients: by row of its weight [out] float64 into `rows`, undefined at first.
void add_squares(at::Tensor& rows, const LinearGradient& gradient, const at::Tensor& squares, int64_t out_features);

// The float model forward over a text and back, one block in memory at a time, and durable: hidden states in front of every block and
// behind the last, and the gradient by what the block at work made, each in a file of `folder`. blocks · tokens · width numbers of disk.
class GradientWalk {
 public:
  // The folder exists, and belongs to this model, text, loss and seed. All that is given outlives the walk.
  GradientWalk(const std::shared_ptr<const Model>& model, Decoder& decoder, const TokenSet& tokens, EndLoss loss, uint64_t seed, int64_t resident_bytes,
               const std::filesystem::path& folder, const Control& control);

  // watch: what sees a block's values; an empty tap: nothing wants this block. passed: after each block, also of those whose states are there already.
  void forward(const std::function<ValueTap(int block)>& watch, const std::function<void(int block)>& passed);
  // From the last block on whose work is not done to the first. batch: what one batch's pass told. finished: makes the block's work durable; the gradient for the
  // next one is written behind it.
  void backward(const std::function<bool(int block)>& done, const std::function<void(int block, size_t batch, BlockGradients& gradients)>& batch,
                const std::function<void(int block)>& finished);

  // Whether backward() goes on where it was: states behind that block are not wanted any more.
  bool turned(const std::function<bool(int block)>& done) const;

  std::unique_ptr<HiddenStates> states() const;  // room for them
  // The states in front of a block (of the last + 1: behind it). InputError where the file is damaged.
  void load(HiddenStates& states, int block) const;
  void forget(int block) const;  // the states in front of it
  void remove() const;           // all files

  double predictions() const;    // that the loss is a sum over

  // In small batches what passes between two linears stays in a CPU's caches.
  static constexpr int64_t kBatchTokens = 2048;

 private:
  std::filesystem::path states_path(int block) const;
  std::filesystem::path gradient_path(int block) const;
  void begin(HiddenStates& last, HiddenStates& gradient);
  BlockGradients through(const Block& block, const at::Tensor& input, const at::Tensor& by_output) const;

  std::shared_ptr<const Model> model_;
  Decoder& decoder_;
  const TokenSet& tokens_;
  EndLoss loss_;
  uint64_t seed_;
  int64_t resident_bytes_;
  std::filesystem::path folder_;
  const Control& control_;
};

}  // namespace qb
