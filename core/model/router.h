#pragma once
#include <ATen/ATen.h>

#include "core/model/layer_graph.h"

namespace qb {

// logits [tokens, experts] float32 → weights and indices of the chosen experts, [tokens, per_token] each.
// choice_bias: [experts] or undefined.
std::pair<at::Tensor, at::Tensor> route(const at::Tensor& logits, const RouterOp& router, const at::Tensor& choice_bias);

}  // namespace qb
