#include "core/measure/window_pass.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/base/memory.h"

namespace qb {
namespace {

// A block is loaded once for a chunk of windows, whose hidden states are held together. On the CPU loading is a few percent
// of the work from about this many tokens on, and small chunks give early estimates; a GPU computes so fast that it wants
// as many as memory allows.
constexpr int64_t kChunkTokens = 8192;
constexpr int64_t kHiddenBytes = int64_t{512} << 20;

// Before anything is loaded.
std::shared_ptr<const Model> checked(const std::string& evaluator, std::shared_ptr<const Model> model, const std::vector<int32_t>& ids, const WindowSpec& spec) {
  if (spec.seq_len < 2) throw InputError(fmt::format("{}: windows of {} tokens, expected at least 2", evaluator, spec.seq_len));
  if (const int64_t most = longest_sequence(model->architecture); most > 0 && spec.seq_len > most)
    throw InputError(fmt::format("{}: windows of {} tokens, but {} was made for at most {}", evaluator, spec.seq_len, model->info.name, most));
  if (static_cast<int64_t>(ids.size()) < spec.seq_len)
    throw InputError(fmt::format("{}: the text has {} tokens, a window needs {}", evaluator, ids.size(), spec.seq_len));
  if (spec.windows < 0) throw InputError(fmt::format("{}: {} windows, expected 0 (all) or more", evaluator, spec.windows));
  return model;
}

}  // namespace

std::string dtype_text(at::ScalarType dtype) {
  return dtype == at::kFloat ? "float32" : dtype == at::kBFloat16 ? "bfloat16" : "float16";
}

PassProgress::PassProgress(const Control& control, std::string stage, double steps)
    : control_(control), stage_(std::move(stage)), steps_(steps), start_(std::chrono::steady_clock::now()) {}

double PassProgress::seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

void PassProgress::advance(int block, int blocks, double steps) {
  done_ += steps;
  Progress progress;
  progress.phase = "evaluate";
  progress.stage = stage_;
  progress.block = block;
  progress.blocks = blocks;
  progress.fraction = done_ / steps_;
  progress.elapsed_s = seconds();
  progress.eta_s = progress.elapsed_s * (steps_ - done_) / done_;
  progress.rss_bytes = resident_bytes();
  progress.peak_rss_bytes = peak_resident_bytes();
  control_.report(progress);
}

WindowPass::WindowPass(std::string evaluator, std::shared_ptr<const Model> model, TensorSourcePtr source, const std::vector<int32_t>& ids, const WindowSpec& spec, const Control& control)
    : evaluator_(std::move(evaluator)), model_(checked(evaluator_, std::move(model), ids, spec)), source_(source ? std::move(source) : model_->source), ids_(ids), spec_(spec),
      control_(control), decoder_(model_, source_, spec.dtype, spec.device) {
  windows_total_ = static_cast<int64_t>(ids.size()) / spec.seq_len;
  windows_ = spec.windows > 0 ? std::min(spec.windows, windows_total_) : windows_total_;
  const int64_t window_bytes = spec.seq_len * model_->architecture.carried_width() * static_cast<int64_t>(at::elementSize(spec.dtype));
  const int64_t held = spec.device.is_cpu() ? kChunkTokens / spec.seq_len : kHiddenBytes / window_bytes;
  chunk_ = std::clamp<int64_t>(held, 1, windows_);
}

at::Tensor WindowPass::tokens(int64_t window) const {
  at::Tensor tokens = at::empty({1, spec_.seq_len}, at::kLong);
  std::copy_n(ids_.begin() + window * spec_.seq_len, spec_.seq_len, tokens.mutable_data_ptr<int64_t>());
  return tokens;
}

std::vector<at::Tensor> WindowPass::through_blocks(int64_t first, int64_t count, PassProgress& progress) {
  release_freed_memory();  // of the chunk before
  std::vector<at::Tensor> hidden;
  for (int64_t w = first; w < first + count; ++w) hidden.push_back(decoder_.embed(tokens(w)));
  const int blocks = decoder_.blocks();
  for (int b = 0; b < blocks; ++b) {
    control_.checkpoint();
    const Block block = decoder_.load_block(b);
    for (at::Tensor& states : hidden) {
      control_.checkpoint();
      states = decoder_.forward(block, states, {.at_linear = spec_.tap, .at_cache = spec_.cache_tap});
      progress.advance(b, blocks);
    }
  }
  return hidden;
}

InputError WindowPass::not_a_number(int64_t window) const {
  for (const TensorInfo& info : source_->tensors()) {
    const at::Tensor values = source_->read(info.name);
    if (!values.is_floating_point() || values.numel() == 0) continue;
    const auto [low, high] = at::aminmax(values.itemsize() == 1 ? values.to(at::kFloat) : values);  // both are NaN where anything is
    if (!low.isfinite().item<bool>() || !high.isfinite().item<bool>()) return InputError(fmt::format("{}: tensor \"{}\" holds NaN or infinity", model_->path.string(), info.name));
  }
  return InputError(fmt::format("{}: window {} is not a number: the model's activations overflow in {}", evaluator_, window, dtype_text(spec_.dtype)));
}

}  // namespace qb
