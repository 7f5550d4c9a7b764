#include "core/measure/perplexity.h"

#include <algorithm>
#include <cmath>

namespace qb {
namespace {

// The estimate from the windows so far. Standard error of exp(mean): exp(mean) · s / √n (delta method).
void estimate(EvaluationResult& result, const std::vector<double>& window_nll) {
  const double n = static_cast<double>(window_nll.size());
  double mean = 0, squares = 0;
  for (double nll : window_nll) mean += nll / n;
  for (double nll : window_nll) squares += (nll - mean) * (nll - mean);
  const double error = n > 1 ? std::sqrt(squares / (n - 1) / n) : 0;
  result.windows = static_cast<int64_t>(window_nll.size());
  result.put({"perplexity", std::exp(mean), std::exp(mean) * error});
  result.put({"nll", mean, error, window_nll});
}

}  // namespace

EvaluationResult perplexity(std::shared_ptr<const Model> model, TensorSourcePtr source, const std::vector<int32_t>& ids,
                            const PerplexitySpec& spec, const Control& control,
                            const std::function<void(const EvaluationResult&)>& on_estimate) {
  WindowPass pass("perplexity", model, source, ids, spec, control);
  const int64_t windows = pass.windows();
  PassProgress progress(control, "perplexity", pass.steps(windows));
  EvaluationResult result;
  std::vector<double> window_nll;
  result.seq_len = spec.seq_len;
  result.corpus_tokens = static_cast<int64_t>(ids.size());
  result.dtype = dtype_text(spec.dtype);
  result.windows_total = pass.windows_total();

  for (int64_t first = 0; first < windows; first += pass.chunk()) {
    const int64_t count = std::min(pass.chunk(), windows - first);
    std::vector<at::Tensor> hidden = pass.through_blocks(first, count, progress);
    for (int64_t i = 0; i < count; ++i) {
      control.checkpoint();
      const double nll = pass.decoder().negative_log_likelihood(hidden[i], pass.tokens(first + i)).mean(at::kDouble).item<double>();
      if (!std::isfinite(nll)) throw pass.not_a_number(first + i);
      window_nll.push_back(nll);
      hidden[i].reset();
      pass.scored(progress);
    }
    estimate(result, window_nll);
    result.seconds = progress.seconds();
    if (on_estimate) on_estimate(result);
  }
  result.seconds = progress.seconds();
  return result;
}

}  // namespace qb
