#include "core/model/head.h"

#include <limits>

#include "core/model/kernels.h"

namespace qb {
namespace {

// A tile of logits of one window then fits in a desktop's last-level cache, and products stay large enough to be fast.
constexpr int64_t kVocabularyTile = 2048;

// Logits of vocabulary rows first … first + count, float32.
at::Tensor tile_logits(const at::Tensor& x, const HeadSpec& spec, int64_t first, int64_t count) {
  const at::Tensor rows = spec.rows.narrow(0, first, count).to(x.scalar_type());
  at::Tensor logits = linear_product(x, rows).to(at::kFloat);
  if (spec.bias.defined()) logits.add_(spec.bias.narrow(0, first, count).to(at::kFloat));
  if (spec.scale != 1) logits.mul_(spec.scale);
  if (spec.softcap > 0) logits.div_(spec.softcap).tanh_().mul_(spec.softcap);
  return logits;
}

}  // namespace

at::Tensor head_logits(const at::Tensor& x, const HeadSpec& spec) {
  const int64_t vocabulary = spec.rows.size(0);
  at::Tensor out = at::empty({x.size(0), vocabulary}, x.options().dtype(at::kFloat));
  for (int64_t first = 0; first < vocabulary; first += kVocabularyTile) {
    const int64_t count = std::min(kVocabularyTile, vocabulary - first);
    out.narrow(1, first, count).copy_(tile_logits(x, spec, first, count));
  }
  return out;
}

at::Tensor head_negative_log_likelihood(const at::Tensor& x, const at::Tensor& targets, const HeadSpec& spec) {
  return head_negative_log_likelihood(x, at::arange(x.size(0), targets.options()), targets, spec);
}

at::Tensor head_negative_log_likelihood(const at::Tensor& x, const at::Tensor& rows, const at::Tensor& targets, const HeadSpec& spec) {
  const int64_t vocabulary = spec.rows.size(0);
  const auto options = x.options().dtype(at::kFloat);
  at::Tensor total = at::full({x.size(0)}, -std::numeric_limits<float>::infinity(), options);  // log of the sum of exponentials so far
  at::Tensor chosen = at::zeros({targets.size(0)}, options);
  for (int64_t first = 0; first < vocabulary; first += kVocabularyTile) {
    const int64_t count = std::min(kVocabularyTile, vocabulary - first);
    const at::Tensor logits = tile_logits(x, spec, first, count);
    const at::Tensor local = (targets - first).clamp(0, count - 1);
    const at::Tensor inside = (targets >= first).logical_and(targets < first + count);
    chosen = at::where(inside, logits.reshape({-1}).index_select(0, rows * count + local), chosen);
    // log Σ exp(l) = l₀ − log_softmax(l)₀: ATen's log_softmax is one vectorised pass, its logsumexp is six times as slow.
    const at::Tensor relative = at::log_softmax(logits, 1);
    total = at::logaddexp(total, logits.select(1, 0) - relative.select(1, 0));
  }
  return total.index_select(0, rows) - chosen;
}

Divergence head_divergence(const at::Tensor& x, const HeadSpec& spec, const at::Tensor& teacher, const HeadSpec& teacher_spec) {
  constexpr int64_t kTokens = 128;
  HeadSpec wide = spec, wide_teacher = teacher_spec;
  wide.rows = spec.rows.to(x.scalar_type());  // once: it is multiplied with often
  wide_teacher.rows = teacher_spec.rows.is_same(spec.rows) ? wide.rows : teacher_spec.rows.to(x.scalar_type());
  Divergence result{0, at::empty_like(x)};
  for (int64_t first = 0; first < x.size(0); first += kTokens) {
    const int64_t count = std::min(kTokens, x.size(0) - first);
    const at::Tensor target = at::log_softmax(tile_logits(teacher.narrow(0, first, count), wide_teacher, 0, wide.rows.size(0)), 1), probability = target.exp();
    const at::Tensor logits = tile_logits(x.narrow(0, first, count), wide, 0, wide.rows.size(0)), student = at::log_softmax(logits, 1);
    result.sum += target.sub_(student).mul_(probability).sum(at::kDouble).item<double>();
    const at::Tensor by_logits = student.exp_().sub_(probability);
    if (spec.softcap > 0) by_logits.mul_(1 - (logits / spec.softcap).square());
    if (spec.scale != 1) by_logits.mul_(spec.scale);
    result.gradient.narrow(0, first, count).copy_(at::matmul(by_logits.to(x.scalar_type()), wide.rows));
  }
  return result;
}

}  // namespace qb
