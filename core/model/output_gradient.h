#pragma once
#include <ATen/ATen.h>

#include <cstdint>
#include <memory>

#include "core/model/model.h"

namespace qb {

// Where a backward pass through a model's blocks begins: gradients by the hidden states behind the last block [batch, seq,
// Architecture::carried_width()], through final norm and head. In the dtype that Decoder holds weights in.
class OutputGradient {
 public:
  // As Decoder's.
  OutputGradient(std::shared_ptr<const Model> model, TensorSourcePtr source, at::ScalarType dtype, at::Device device = at::kCPU);
  ~OutputGradient();

  // Drawn ones, whose products are on average the curvature of the KL divergence from what the model predicts (head_divergence_probe).
  at::Tensor divergence_probe(const at::Tensor& hidden, uint64_t seed);
  // Of Σ over tokens of the cross-entropy of the next one of ids [batch, seq]; the last token's are zero.
  at::Tensor cross_entropy(const at::Tensor& hidden, const at::Tensor& ids);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace qb
