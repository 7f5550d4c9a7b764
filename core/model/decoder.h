#pragma once
#include <ATen/ATen.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/model/model.h"

namespace qb {

struct Linear {
  LinearInfo info;
  at::Tensor weight;  // [out, in], Decoder::weight_dtype() on its device
  at::Tensor bias;    // [out] or undefined
  LinearRole role = LinearRole::q;
  int expert = -1;
};

// Called just before a linear multiplies. `x` is its input [tokens, in]; linears of one subset see the same tensor.
// May return a replacement (activation fake-quantization), or `x` itself.
using LinearTap = std::function<at::Tensor(const Linear& linear, const at::Tensor& x)>;

// One decoder layer's weights, loaded: copies, never views of the file. Weights may be replaced in place
// (`linears[i].weight = …`, any floating dtype) between forwards; the order of `linears` is the architecture's.
struct Block {
  int index = 0;
  std::vector<Linear> linears;
  std::map<std::string, at::Tensor> others;  // norms, routers, q/k norms … by their name inside the block
  Linear* find(const std::string& name);
};

// The one forward pass of all families, driven by the Architecture table.
// Hidden states are [batch, seq, hidden] in the compute dtype. Not thread-safe; make one per thread.
class Decoder {
 public:
  // source may be an overlay of model->source. dtype: kFloat, kBFloat16 or kHalf.
  Decoder(std::shared_ptr<const Model> model, TensorSourcePtr source, at::ScalarType dtype, at::Device device = at::kCPU);
  ~Decoder();

  const Architecture& architecture() const;
  at::ScalarType dtype() const;    // of hidden states, and what weights are rounded to
  // What loaded weights are held in and blocks compute in: dtype(), except on a CPU without bfloat16 instructions, where
  // bfloat16 and float16 weights are widened (exactly) to float32 and only a block's output is rounded.
  at::ScalarType weight_dtype() const;
  at::Device device() const;
  int blocks() const;

  at::Tensor embed(const at::Tensor& ids);                 // [batch, seq] int64 → hidden states; InputError on a foreign id
  Block load_block(int index) const;                       // from the source, rounded to dtype, in weight_dtype on device
  // Positions 0 … seq−1, causal. tap may be empty; an expert's linears see only the tokens routed to it.
  at::Tensor forward(const Block& block, const at::Tensor& hidden, const LinearTap& tap = {}) const;
  // The same in the dtype that weights are held in, with gradients towards the block's tensors that require them.
  at::Tensor forward_learning(const Block& block, const at::Tensor& hidden, const LinearTap& tap = {}) const;
  at::Tensor logits(const at::Tensor& hidden);             // final norm + head → [batch, seq, vocabulary] float32
  // Sum of cross-entropies of the shifted targets of ids [batch, seq] without materialising all logits;
  // returns [batch, seq−1] float32 negative log-likelihoods.
  at::Tensor negative_log_likelihood(const at::Tensor& hidden, const at::Tensor& ids);
  // Σ over tokens of KL(teacher ‖ hidden) between the predictions of two hidden states [batch, seq, hidden] behind the last
  // block, and its gradient by `hidden`, in the dtype that weights are held in.
  std::pair<double, at::Tensor> divergence(const at::Tensor& hidden, const at::Tensor& teacher);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace qb
