#pragma once
#include <ATen/ATen.h>

#include "core/model/architecture.h"

// The element-wise steps of a block, fused on the CPU; the same by ATen operations on other devices.
namespace qb {

// Normalises rows of x [rows, size] (last dimension contiguous). weight, bias: [size] or undefined.
// Computed in float32, whatever x's dtype.
at::Tensor normalise(const at::Tensor& x, NormKind kind, double eps, const at::Tensor& weight, const at::Tensor& bias);

// Whether a gradient must flow through x: then nothing is fused, and nothing written in place.
bool learns(const at::Tensor& x);

// Norm of every head of x [tokens, heads, head_dim], in x's memory unless a gradient flows; weight and bias: [head_dim],
// [heads, head_dim] or undefined.
at::Tensor normalise_heads(at::Tensor x, NormKind kind, double eps, const at::Tensor& weight, const at::Tensor& bias);

// x·weightᵀ + bias in x's dtype; x: [tokens, in], weight: [out, in], bias: [out] or undefined. Products are exact and sums in float32
// also for bfloat16, which is widened first where the processor multiplies float32 faster.
at::Tensor linear_product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {});

// act(gate) · up, in gate's memory where it can be; gate, up: [tokens, width], may be column ranges of one tensor.
at::Tensor activate_gated(at::Tensor gate, const at::Tensor& up, Activation activation);
at::Tensor activate(const at::Tensor& x, Activation activation);

}  // namespace qb
