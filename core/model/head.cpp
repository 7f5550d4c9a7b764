#include "core/model/head.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include <functional>
#include <limits>
#include <vector>

#include "core/model/kernels.h"
#include "core/model/prediction_kernel.h"

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

namespace {

// The sums of RunningComparison for all tokens at once, where the kernel does not run.
struct ComparisonSums {
  at::Tensor peak, reference_peak, top, reference_top, sum, reference_sum, difference, target, reference_target;

  ComparisonSums(int64_t tokens, const at::Device& device) {
    const auto numbers = at::TensorOptions(at::kDouble).device(device);
    peak = reference_peak = at::full({tokens}, -std::numeric_limits<double>::infinity(), numbers);
    top = reference_top = at::zeros({tokens}, numbers.dtype(at::kLong));
    sum = reference_sum = difference = target = reference_target = at::zeros({tokens}, numbers);
  }

  void take(const at::Tensor& logits, const at::Tensor& reference, int64_t first, const at::Tensor& targets) {
    const auto raised = [&](const at::Tensor& tile, at::Tensor& largest, at::Tensor& place) {
      const auto [found, where] = tile.max(1);
      const at::Tensor before = largest, higher = found.to(at::kDouble) > largest;
      place = at::where(higher, where + first, place);
      largest = at::where(higher, found.to(at::kDouble), largest);
      return at::where(before.isinf(), at::zeros_like(largest), largest - before);
    };
    const at::Tensor moved = raised(logits, peak, top), reference_moved = raised(reference, reference_peak, reference_top);
    sum = sum * (-moved).exp();
    const at::Tensor factor = (-reference_moved).exp();
    reference_sum = reference_sum * factor;
    difference = difference * factor + reference_sum * (moved - reference_moved);
    const at::Tensor l = logits - peak.unsqueeze(1).to(at::kFloat), r = reference - reference_peak.unsqueeze(1).to(at::kFloat), weight = r.exp();
    sum = sum + l.exp().sum(1, false, at::kDouble);
    reference_sum = reference_sum + weight.sum(1, false, at::kDouble);
    difference = difference + weight.mul((r - l)).sum(1, false, at::kDouble);
    const at::Tensor local = (targets - first).clamp(0, logits.size(1) - 1).unsqueeze(1), inside = (targets >= first).logical_and(targets < first + logits.size(1));
    const auto chosen = [&](const at::Tensor& tile, const at::Tensor& so_far) { return at::where(inside, tile.gather(1, local).squeeze(1).to(at::kDouble), so_far); };
    target = chosen(logits, target);
    reference_target = chosen(reference, reference_target);
  }

  PredictionComparison result() const {
    return {(difference / reference_sum - reference_sum.log() + sum.log()).to(at::kCPU), (peak - target + sum.log()).to(at::kCPU),
            (reference_peak - reference_target + reference_sum.log()).to(at::kCPU), (top == reference_top).to(at::kCPU)};
  }
};

PredictionComparison collected(const std::vector<RunningComparison>& running) {
  const auto tokens = static_cast<int64_t>(running.size());
  PredictionComparison all{at::empty({tokens}, at::kDouble), at::empty({tokens}, at::kDouble), at::empty({tokens}, at::kDouble), at::empty({tokens}, at::kBool)};
  for (size_t t = 0; t < running.size(); ++t) {
    all.divergence.mutable_data_ptr<double>()[t] = running[t].divergence();
    all.negative_log_likelihood.mutable_data_ptr<double>()[t] = running[t].negative_log_likelihood();
    all.reference_negative_log_likelihood.mutable_data_ptr<double>()[t] = running[t].reference_negative_log_likelihood();
    all.same_top.mutable_data_ptr<bool>()[t] = running[t].top == running[t].reference_top;
  }
  return all;
}

}  // namespace

PredictionComparison head_comparison(const at::Tensor& x, const HeadSpec& spec, const at::Tensor& reference, const HeadSpec& reference_spec, const at::Tensor& targets) {
  const int64_t tokens = x.size(0), vocabulary = spec.rows.size(0);
  std::vector<RunningComparison> running(x.is_cpu() ? static_cast<size_t>(tokens) : 0);
  ComparisonSums sums(x.is_cpu() ? 0 : tokens, x.device());
  for (int64_t first = 0; first < vocabulary; first += kVocabularyTile) {
    const int64_t count = std::min(kVocabularyTile, vocabulary - first);
    const at::Tensor logits = tile_logits(x, spec, first, count).contiguous(), its = tile_logits(reference, reference_spec, first, count).contiguous();
    if (!x.is_cpu()) {
      sums.take(logits, its, first, targets);
      continue;
    }
    const float *ours = logits.const_data_ptr<float>(), *theirs = its.const_data_ptr<float>();
    const int64_t* wanted = targets.const_data_ptr<int64_t>();
    at::parallel_for(0, tokens, 8, [&](int64_t from, int64_t to) {
      for (int64_t t = from; t < to; ++t) compare_tile(ours + t * count, theirs + t * count, count, first, wanted[t], running[static_cast<size_t>(t)]);
    });
  }
  return x.is_cpu() ? collected(running) : sums.result();
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
