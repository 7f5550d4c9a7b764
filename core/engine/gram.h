#pragma once
#include <ATen/ATen.h>

#include "core/engine/gram_kernel.h"

namespace qb {

// gram [in, in] (float32, contiguous) += xᵀ·x for x [tokens, in], on and above the diagonal; below it is undefined until
// mirrored by complete_gram(). Sums are in float32 whatever x is: a bfloat16 product is no longer positive definite.
// bfloat16 on a CPU that multiplies it takes a kernel of its own, faster than float32 and as exact; the sums' order does not
// depend on the number of threads. On CUDA 16-bit inputs are multiplied as they are.
void add_upper_gram(const at::Tensor& gram, const at::Tensor& x);
// By one of gram_kernels(): x is bfloat16, on the CPU.
void add_upper_gram(const at::Tensor& gram, const at::Tensor& x, const GramKernel& kernel);

// Makes the whole matrix of its upper half, [in, in], in place; returns it.
at::Tensor complete_gram(const at::Tensor& upper);

}  // namespace qb
