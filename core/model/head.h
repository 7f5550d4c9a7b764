#pragma once
#include <ATen/ATen.h>

#include <cstdint>

namespace qb {

struct HeadSpec {
  at::Tensor rows;      // [vocabulary, width], any floating dtype
  at::Tensor bias;      // [vocabulary] or undefined, added before all else
  double scale = 1;     // of the logits
  double softcap = 0;   // tanh(l / cap) · cap; 0: none
};

// x [tokens, width] → [tokens, vocabulary] float32.
at::Tensor head_logits(const at::Tensor& x, const HeadSpec& spec);

// −log softmax(logits)[target] for every token, [tokens] float32, holding only a tile of logits at a time.
at::Tensor head_negative_log_likelihood(const at::Tensor& x, const at::Tensor& targets, const HeadSpec& spec);

struct Divergence {
  double sum = 0;       // Σ over tokens of KL(teacher ‖ student)
  at::Tensor gradient;  // of the sum by x [tokens, width], x's dtype
};
// Of what x predicts from what teacher predicts, both [tokens, width]; holds the logits of a hundred tokens at a time.
Divergence head_divergence(const at::Tensor& x, const HeadSpec& spec, const at::Tensor& teacher, const HeadSpec& teacher_spec);

// For every token a gradient by x whose outer product with itself is, on average over draws, the Hessian H of the KL divergence from
// its own prediction p: by the logits, (diag(√p) − p√pᵀ)·ε with ε of ±1, since that factor times its transpose is diag(p) − ppᵀ.
// Less noisy than the cross-entropy of drawn tokens. ε: at::randint(0, 2, [tokens, vocabulary]) of a generator of this seed, 128
// tokens at a time. [tokens, width], x's dtype.
at::Tensor head_divergence_probe(const at::Tensor& x, const HeadSpec& spec, uint64_t seed);

// Gradient by x [tokens, width] of Σ −log softmax(logits)[target]; nothing comes of a target below 0.
at::Tensor head_cross_entropy_gradient(const at::Tensor& x, const at::Tensor& targets, const HeadSpec& spec);

}  // namespace qb
