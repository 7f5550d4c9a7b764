#pragma once
#include <ATen/ATen.h>

namespace qb {

// Each channel's causal convolution. x: [batch, seq, channels], weight: [channels, 1, kernel], bias: [channels] or undefined;
// before the first token there are zeros. Returns x's shape.
at::Tensor causal_convolution(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

// Gated delta rule (Yang et al. 2024, arXiv 2412.06464), as Qwen3-Next has it. q, k: [batch, seq, key_heads, key_dim], v: [batch, seq,
// value_heads, value_dim]; b, a: [batch, seq, value_heads]; decay (A_log), step (dt_bias): [value_heads]. Key head h serves
// value heads h·(value_heads / key_heads) …. Computed in float32; returns v's shape and dtype. Lets gradients through.
at::Tensor gated_delta_rule(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& b, const at::Tensor& a, const at::Tensor& decay,
                            const at::Tensor& step);

}  // namespace qb
