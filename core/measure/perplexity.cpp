#include "core/measure/perplexity.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>

#include "core/base/error.h"
#include "core/base/memory.h"

namespace qb {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// A block is loaded once for a chunk of windows, whose hidden states are held together. On the CPU loading is a few percent
// of the work from about this many tokens on, and small chunks give early estimates; a GPU computes so fast that it wants
// as many as memory allows.
constexpr int64_t kChunkTokens = 8192;
constexpr int64_t kHiddenBytes = int64_t{512} << 20;

std::string dtype_text(at::ScalarType dtype) {
  return dtype == at::kFloat ? "float32" : dtype == at::kBFloat16 ? "bfloat16" : "float16";
}

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

void check(const Model& model, const std::vector<int32_t>& ids, const PerplexitySpec& spec) {
  if (spec.seq_len < 2) throw InputError(fmt::format("perplexity: windows of {} tokens, expected at least 2", spec.seq_len));
  if (const int64_t most = longest_sequence(model.architecture); most > 0 && spec.seq_len > most)
    throw InputError(fmt::format("perplexity: windows of {} tokens, but {} was made for at most {}", spec.seq_len, model.info.name, most));
  if (static_cast<int64_t>(ids.size()) < spec.seq_len)
    throw InputError(fmt::format("perplexity: the text has {} tokens, a window needs {}", ids.size(), spec.seq_len));
  if (spec.windows < 0) throw InputError(fmt::format("perplexity: {} windows, expected 0 (all) or more", spec.windows));
}

// Why a window's loss is no number: weights that are none, or else the arithmetic.
InputError not_a_number(const Model& model, const TensorSource& source, int64_t window, const std::string& dtype) {
  for (const TensorInfo& info : source.tensors()) {
    const at::Tensor values = source.read(info.name);
    if (!values.is_floating_point() || values.numel() == 0) continue;
    const auto [low, high] = at::aminmax(values.itemsize() == 1 ? values.to(at::kFloat) : values);  // both are NaN where anything is
    if (!low.isfinite().item<bool>() || !high.isfinite().item<bool>()) return InputError(fmt::format("{}: tensor \"{}\" holds NaN or infinity", model.path.string(), info.name));
  }
  return InputError(fmt::format("perplexity: window {} is not a number: the model's activations overflow in {}", window, dtype));
}

}  // namespace

EvaluationResult perplexity(std::shared_ptr<const Model> model, TensorSourcePtr source, const std::vector<int32_t>& ids,
                            const PerplexitySpec& spec, const Control& control,
                            const std::function<void(const EvaluationResult&)>& on_estimate) {
  check(*model, ids, spec);
  const auto start = Clock::now();
  EvaluationResult result;
  std::vector<double> window_nll;
  result.seq_len = spec.seq_len;
  result.corpus_tokens = static_cast<int64_t>(ids.size());
  result.dtype = dtype_text(spec.dtype);
  result.windows_total = static_cast<int64_t>(ids.size()) / spec.seq_len;
  const int64_t windows = spec.windows > 0 ? std::min(spec.windows, result.windows_total) : result.windows_total;

  Decoder decoder(model, source, spec.dtype, spec.device);
  const int64_t window_bytes = spec.seq_len * model->architecture.carried_width() * static_cast<int64_t>(at::elementSize(spec.dtype));
  const int64_t held = spec.device.is_cpu() ? kChunkTokens / spec.seq_len : kHiddenBytes / window_bytes;
  const int64_t chunk = std::clamp<int64_t>(held, 1, windows);
  const int blocks = decoder.blocks();
  const double steps = static_cast<double>(windows) * (blocks + 1);
  double done = 0;

  auto advance = [&](int block) {
    ++done;
    Progress progress;
    progress.phase = "evaluate";
    progress.stage = "perplexity";
    progress.block = block;
    progress.blocks = blocks;
    progress.fraction = done / steps;
    progress.elapsed_s = seconds_since(start);
    progress.eta_s = progress.elapsed_s * (steps - done) / done;
    progress.rss_bytes = resident_bytes();
    progress.peak_rss_bytes = peak_resident_bytes();
    control.report(progress);
  };

  for (int64_t first = 0; first < windows; first += chunk) {
    const int64_t count = std::min(chunk, windows - first);
    std::vector<at::Tensor> tokens, hidden;
    for (int64_t w = first; w < first + count; ++w) {
      at::Tensor window = at::empty({1, spec.seq_len}, at::kLong);
      std::copy_n(ids.begin() + w * spec.seq_len, spec.seq_len, window.mutable_data_ptr<int64_t>());
      tokens.push_back(window);
      hidden.push_back(decoder.embed(window));
    }
    for (int b = 0; b < blocks; ++b) {
      control.checkpoint();
      const Block block = decoder.load_block(b);
      for (at::Tensor& states : hidden) {
        control.checkpoint();
        states = decoder.forward(block, states, {.at_linear = spec.tap, .at_cache = spec.cache_tap});
        advance(b);
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      control.checkpoint();
      const double nll = decoder.negative_log_likelihood(hidden[i], tokens[i]).mean(at::kDouble).item<double>();
      if (!std::isfinite(nll)) throw not_a_number(*model, *source, first + i, result.dtype);
      window_nll.push_back(nll);
      hidden[i].reset();
      advance(-1);
    }
    release_freed_memory();
    estimate(result, window_nll);
    result.seconds = seconds_since(start);
    if (on_estimate) on_estimate(result);
  }
  result.seconds = seconds_since(start);
  return result;
}

}  // namespace qb
