#pragma once
#include <ATen/ATen.h>

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

// The same of chosen rows, of which one may be asked for several targets: rows, targets [n] int64 → [n] float32.
at::Tensor head_negative_log_likelihood(const at::Tensor& x, const at::Tensor& rows, const at::Tensor& targets, const HeadSpec& spec);

struct Divergence {
  double sum = 0;       // Σ over tokens of KL(teacher ‖ student)
  at::Tensor gradient;  // of the sum by x [tokens, width], x's dtype
};
// Of what x predicts from what teacher predicts, both [tokens, width]; holds the logits of a hundred tokens at a time.
Divergence head_divergence(const at::Tensor& x, const HeadSpec& spec, const at::Tensor& teacher, const HeadSpec& teacher_spec);

}  // namespace qb
