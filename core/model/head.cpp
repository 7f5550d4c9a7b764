#include "core/model/head.h"

#include <ATen/CPUGeneratorImpl.h>

#include <functional>
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

// Tokens whose logits are held at a time.
constexpr int64_t kTokens = 128;

// What a gradient by the logits, as tile_logits() gives them, is by x. Overwrites it.
at::Tensor towards_input(at::Tensor by_logits, const at::Tensor& logits, const HeadSpec& wide, at::ScalarType dtype) {
  if (wide.softcap > 0) by_logits.mul_(1 - (logits / wide.softcap).square());
  if (wide.scale != 1) by_logits.mul_(wide.scale);
  return at::matmul(by_logits.to(dtype), wide.rows);
}

// A gradient by x of one by the logits: `by_logits` is given logits [n, vocabulary] of the tokens from `first` on.
at::Tensor gradient_of(const at::Tensor& x, const HeadSpec& spec, const std::function<at::Tensor(const at::Tensor& logits, int64_t first)>& by_logits) {
  HeadSpec wide = spec;
  wide.rows = spec.rows.to(x.scalar_type());
  at::Tensor gradient = at::empty_like(x);
  for (int64_t first = 0; first < x.size(0); first += kTokens) {
    const int64_t count = std::min(kTokens, x.size(0) - first);
    const at::Tensor logits = tile_logits(x.narrow(0, first, count), wide, 0, wide.rows.size(0));
    gradient.narrow(0, first, count).copy_(towards_input(by_logits(logits, first), logits, wide, x.scalar_type()));
  }
  return gradient;
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
  const int64_t tokens = x.size(0), vocabulary = spec.rows.size(0);
  const auto options = x.options().dtype(at::kFloat);
  at::Tensor total = at::full({tokens}, -std::numeric_limits<float>::infinity(), options);  // log of the sum of exponentials so far
  at::Tensor chosen = at::zeros({tokens}, options);
  for (int64_t first = 0; first < vocabulary; first += kVocabularyTile) {
    const int64_t count = std::min(kVocabularyTile, vocabulary - first);
    const at::Tensor logits = tile_logits(x, spec, first, count);
    const at::Tensor local = (targets - first).clamp(0, count - 1);
    const at::Tensor inside = (targets >= first).logical_and(targets < first + count);
    chosen = at::where(inside, logits.gather(1, local.unsqueeze(1)).squeeze(1), chosen);
    // log Σ exp(l) = l₀ − log_softmax(l)₀: ATen's log_softmax is one vectorised pass, its logsumexp is six times as slow.
    const at::Tensor relative = at::log_softmax(logits, 1);
    total = at::logaddexp(total, logits.select(1, 0) - relative.select(1, 0));
  }
  return total - chosen;
}

Divergence head_divergence(const at::Tensor& x, const HeadSpec& spec, const at::Tensor& teacher, const HeadSpec& teacher_spec) {
  HeadSpec wide = spec, wide_teacher = teacher_spec;
  wide.rows = spec.rows.to(x.scalar_type());  // once: it is multiplied with often
  wide_teacher.rows = teacher_spec.rows.is_same(spec.rows) ? wide.rows : teacher_spec.rows.to(x.scalar_type());
  Divergence result{0, at::empty_like(x)};
  for (int64_t first = 0; first < x.size(0); first += kTokens) {
    const int64_t count = std::min(kTokens, x.size(0) - first);
    const at::Tensor target = at::log_softmax(tile_logits(teacher.narrow(0, first, count), wide_teacher, 0, wide.rows.size(0)), 1), probability = target.exp();
    const at::Tensor logits = tile_logits(x.narrow(0, first, count), wide, 0, wide.rows.size(0)), student = at::log_softmax(logits, 1);
    result.sum += target.sub_(student).mul_(probability).sum(at::kDouble).item<double>();
    result.gradient.narrow(0, first, count).copy_(towards_input(student.exp_().sub_(probability), logits, wide, x.scalar_type()));
  }
  return result;
}

at::Tensor head_divergence_probe(const at::Tensor& x, const HeadSpec& spec, uint64_t seed) {
  at::Generator random = at::detail::createCPUGenerator(seed);
  return gradient_of(x, spec, [&](const at::Tensor& logits, int64_t) {
    const at::Tensor signs = at::randint(0, 2, logits.sizes(), random, at::TensorOptions().dtype(at::kFloat)).mul_(2).sub_(1).to(logits.device());
    const at::Tensor p = at::softmax(logits, 1), drawn = p.sqrt().mul_(signs);
    return drawn - p * drawn.sum(1, true);
  });
}

at::Tensor head_cross_entropy_gradient(const at::Tensor& x, const at::Tensor& targets, const HeadSpec& spec) {
  return gradient_of(x, spec, [&](const at::Tensor& logits, int64_t first) {
    const at::Tensor target = targets.narrow(0, first, logits.size(0)).unsqueeze(1), known = target.ge(0).to(at::kFloat);
    return at::softmax(logits, 1).mul_(known).scatter_add_(1, target.clamp_min(0), -known);
  });
}

}  // namespace qb
