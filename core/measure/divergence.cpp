#include "core/measure/divergence.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
#include <span>
#include <thread>
#include <utility>

#include "core/base/lease.h"
#include "core/base/memory.h"
#include "core/measure/reference_states.h"
#include "core/text/tokenizer.h"

namespace qb {
namespace {

using Clock = std::chrono::steady_clock;

// What the reference hands to its head for each token that predicts one, [seq_len − 1, width] float32.
at::Tensor states_before_head(WindowPass& pass, const at::Tensor& hidden) {
  return pass.decoder().before_head(hidden.narrow(1, 0, hidden.size(1) - 1)).to(at::kFloat);
}

std::string hash_of(const std::vector<int32_t>& ids) {
  Hasher hasher;
  hasher.update(std::as_bytes(std::span(ids)));
  return hasher.hex();
}

// The reference's states on windows 0 … count: from the file, which is filled first where it lacks some.
void fill(ReferenceStates& states, WindowPass& pass, int64_t count, const Control& control, PassProgress& progress, std::unique_ptr<Lease>& lease) {
  while (states.windows() < count && !lease) {
    lease = Lease::take(states.lease());
    if (!lease) {
      control.checkpoint();
      control.milestone();
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }
    states.refresh();
  }
  if (states.windows() > 0) progress.advance(-1, pass.decoder().blocks(), pass.steps(std::min(states.windows(), count)));
  if (states.windows() >= count) {
    lease.reset();
    return;
  }
  if (!states.damage().empty()) {
    Progress said;
    said.phase = "evaluate";
    said.message = fmt::format("{}: made again from there", states.damage());
    control.report(said);
  }

  int64_t done = states.windows();
  states.begin_appending(count);
  while (done < count) {
    const int64_t chunk = std::min(pass.chunk(), count - done);
    std::vector<at::Tensor> hidden = pass.through_blocks(done, chunk, progress);
    for (int64_t i = 0; i < chunk; ++i) {
      const at::Tensor own = states_before_head(pass, hidden[static_cast<size_t>(i)]);
      if (!own.isfinite().all().item<bool>()) throw pass.not_a_number(done + i);
      states.append(own);
      hidden[static_cast<size_t>(i)].reset();
      pass.scored(progress);
    }
    done += chunk;
  }
  states.end_appending();
  lease.reset();
}

class RoundedSource final : public TensorSource {
 public:
  explicit RoundedSource(TensorSourcePtr base) : base_(std::move(base)) {}
  const std::vector<TensorInfo>& tensors() const override { return base_->tensors(); }
  const std::vector<std::filesystem::path>& files() const override { return base_->files(); }
  const TensorInfo* find(const std::string& name) const override { return base_->find(name); }
  at::Tensor read(const std::string& name) const override {
    const at::Tensor values = base_->read(name);
    return values.is_floating_point() ? values.to(at::kBFloat16).to(at::kFloat) : values;
  }

 private:
  TensorSourcePtr base_;
};

// Renews a lease through the long steps of a pass, not at each of them.
Control renewing(const Control& control, const std::function<void()>& renew) {
  Control inner = control;
  inner.on_progress = [&control, renew, last = Clock::now()](const Progress& progress) mutable {
    if (Clock::now() - last > Lease::kStale / 6) {
      renew();
      last = Clock::now();
    }
    control.report(progress);
  };
  return inner;
}

}  // namespace

std::string to_text(Scored scored) { return scored == Scored::all ? "all" : "second_half"; }

std::optional<Scored> parse_scored(const std::string& text) {
  for (const Scored scored : {Scored::all, Scored::second_half})
    if (text == to_text(scored)) return scored;
  return std::nullopt;
}

std::vector<KnobInfo> divergence_knobs() {
  return {{.name = "scored",
           .title = "Scored tokens",
           .type = KnobType::choice,
           .default_value = std::string("all"),
           .choices = {"all", "second_half"},
           .help = "all: every token of a window but its first; second_half: those with half a window before them, BOS over each window's first where the tokenizer adds one",
           .source = "second_half is llama.cpp's convention"}};
}

EvaluationResult divergence(std::shared_ptr<const Model> model, TensorSourcePtr source, std::shared_ptr<const Model> reference, const std::vector<int32_t>& ids, const DivergenceSpec& spec,
                            const Control& outer, const std::function<void(const EvaluationResult&)>& on_estimate) {
  const WindowSpec& window = spec.window;
  std::unique_ptr<Lease> lease;
  const Control control = renewing(outer, [&lease] {
    if (lease) lease->renew();
  });
  if (model->architecture.vocabulary != reference->architecture.vocabulary)
    throw InputError(fmt::format("divergence: {} has a vocabulary of {} tokens, its reference {} one of {}", model->path.string(), model->architecture.vocabulary, reference->path.string(), reference->architecture.vocabulary));
  WindowPass pass("divergence", model, std::move(source), ids, window, control);
  WindowPass its_pass("divergence", reference, nullptr, ids, {window.seq_len, window.windows, at::kFloat, window.device}, control);
  const int64_t windows = pass.windows(), chunk = std::min(pass.chunk(), its_pass.chunk());
  PassProgress progress(control, "divergence", pass.steps(windows) + its_pass.steps(windows));

  std::optional<ReferenceStates> kept;
  if (!spec.cache.empty()) {
    const std::string hash = spec.reference_hash.empty() ? model_hash(reference->path) : spec.reference_hash;
    kept.emplace(spec.cache, ReferenceStates::Key{hash, hash_of(ids), window.seq_len, reference->architecture.embedding_size});
    fill(*kept, its_pass, windows, control, progress, lease);
  }

  const int64_t skipped = spec.scored == Scored::all ? 0 : window.seq_len / 2, scored = window.seq_len - 1 - skipped;
  if (scored < 1) throw InputError(fmt::format("divergence: windows of {} tokens have no second half to score, expected at least 3", window.seq_len));
  EvaluationResult result;
  result.evaluator = "divergence";
  result.seq_len = window.seq_len;
  result.windows_total = pass.windows_total();
  result.corpus_tokens = static_cast<int64_t>(ids.size());
  result.dtype = dtype_text(window.dtype);
  result.settings["scored"] = to_text(spec.scored);
  TokenDivergences tokens;
  tokens.tokens_per_window = scored;

  for (int64_t first = 0; first < windows; first += chunk) {
    const int64_t count = std::min(chunk, windows - first);
    std::vector<at::Tensor> theirs;
    if (!kept) {
      theirs = its_pass.through_blocks(first, count, progress);
      for (at::Tensor& states : theirs) {
        states = states_before_head(its_pass, states);
        its_pass.scored(progress);
      }
    }
    std::vector<at::Tensor> hidden = pass.through_blocks(first, count, progress);
    for (int64_t i = 0; i < count; ++i) {
      control.checkpoint();
      const auto at = static_cast<size_t>(i);
      const at::Tensor states = kept ? kept->window(first + i) : theirs[at];
      const PredictionComparison found = pass.decoder().compare(hidden[at].narrow(1, skipped, scored), states.narrow(0, skipped, scored), its_pass.decoder(),
                                                                pass.tokens(first + i).view({-1}).narrow(0, skipped + 1, scored));
      if (!found.reference_negative_log_likelihood.isfinite().all().item<bool>()) throw its_pass.not_a_number(first + i);
      if (!found.negative_log_likelihood.isfinite().all().item<bool>() || !found.divergence.isfinite().all().item<bool>()) throw pass.not_a_number(first + i);
      const auto append = [&](std::vector<double>& values, const at::Tensor& more) { values.insert(values.end(), more.const_data_ptr<double>(), more.const_data_ptr<double>() + scored); };
      append(tokens.kl, found.divergence);
      append(tokens.nll, found.negative_log_likelihood);
      append(tokens.reference_nll, found.reference_negative_log_likelihood);
      tokens.same_top.insert(tokens.same_top.end(), found.same_top.const_data_ptr<bool>(), found.same_top.const_data_ptr<bool>() + scored);
      hidden[at].reset();
      pass.scored(progress);
    }
    result.windows = first + count;
    result.metrics = divergence_figures(tokens);
    result.seconds = progress.seconds();
    if (on_estimate) on_estimate(result);
  }
  release_freed_memory();
  return result;
}

NoiseFloor noise_floor(std::shared_ptr<const Model> reference, const std::vector<int32_t>& ids, const DivergenceSpec& spec, const Control& control) {
  DivergenceSpec own = spec;
  own.window.tap = {};
  own.window.cache_tap = {};
  NoiseFloor floor;
  if (spec.window.dtype != at::kFloat) floor.dtype = divergence(reference, nullptr, reference, ids, own, control);
  own.window.dtype = at::kFloat;
  floor.weights = divergence(reference, std::make_shared<RoundedSource>(reference->source), reference, ids, own, control);
  for (EvaluationResult* result : {floor.dtype ? &*floor.dtype : nullptr, &floor.weights})
    if (result) result->float_model = true;
  return floor;
}

DivergenceText divergence_tokens(const Corpus& corpus, const Tokenizer& tokenizer, const std::optional<Bos>& wish, const std::string& family, int64_t seq_len, Scored scored) {
  if (scored == Scored::all) {
    const Bos bos = bos_of(wish, family, tokenizer);
    return {evaluation_tokens(corpus, tokenizer, bos, seq_len), bos};
  }
  const Bos asked = bos_of(wish.value_or(Bos::tokenizer), family, tokenizer);
  DivergenceText text{evaluation_tokens(corpus, tokenizer, asked == Bos::every_window ? Bos::tokenizer : asked, seq_len), asked};
  if (!wish && tokenizer.adds_bos()) text.bos = Bos::every_window;
  if (text.bos != Bos::every_window) return text;
  const int32_t token = tokenizer.bos().value();
  if (!tokenizer.adds_bos()) text.ids.insert(text.ids.begin(), token);
  for (size_t at = 0; at < text.ids.size(); at += static_cast<size_t>(seq_len)) text.ids[at] = token;
  return text;
}

}  // namespace qb
