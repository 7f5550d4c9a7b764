#pragma once
#include <ATen/ATen.h>

// What models hand from block to block beside one vector of hidden states (Gemma 3n).
namespace qb {

// ids → their digits of base 256, [tokens, kTokenDigits] in dtype: bfloat16 holds each exactly. And back.
at::Tensor token_digits(const at::Tensor& ids, at::ScalarType dtype);
at::Tensor token_ids(const at::Tensor& digits);

// x [tokens, width] made as large as `first`, by root mean square.
at::Tensor as_large_as(const at::Tensor& x, const at::Tensor& first);

}  // namespace qb
