#pragma once
#include <ATen/ATen.h>

#include <optional>

namespace qb {

// A Hadamard matrix of an order that is a power of two times one of Paley's constructions (a prime q: q + 1 when q % 4 = 3,
// 2(q + 1) when q % 4 = 1). [n, n], entries ±1, float64, H·Hᵀ = n·I. Nothing when no such construction gives order n.
std::optional<at::Tensor> hadamard_matrix(int64_t n);

// x [..., n] times the orthogonal H/√n, in x's dtype, in n·log n steps. n must have a matrix.
at::Tensor apply_hadamard(const at::Tensor& x);

}  // namespace qb
