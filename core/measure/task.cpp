#include "core/measure/task.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <numeric>

#include "core/base/error.h"
#include "core/measure/window_pass.h"
#include "core/text/tokenizer.h"
#include "core/text/unicode.h"
#include "core/text/utf8.h"

namespace qb {
namespace {

// Where the spaces begin that a text ends with, as Python's str.rstrip sees them.
size_t without_spaces(const std::string& text) {
  const char* end = text.data() + text.size();
  while (end > text.data()) {
    const char* last = utf8::previous(end);
    const uint32_t c = utf8::decode(last).code_point;
    if (!unicode::is_space(c) && (c < 0x1C || c > 0x1F)) break;
    end = last;
  }
  return static_cast<size_t>(end - text.data());
}

class Encoder {
 public:
  explicit Encoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer), prefix_(tokenizer.bos() ? tokenizer.bos() : tokenizer.eos()) {
    if (prefix_) prefix_text_ = tokenizer.decode(std::vector<int32_t>{*prefix_}, false);
  }

  // Context and continuation as tokens.
  std::pair<std::vector<int32_t>, std::vector<int32_t>> pair(std::string context, std::string continuation) {
    const size_t kept = without_spaces(context);
    continuation.insert(0, context, kept);
    context.resize(kept);
    if (context.empty()) {
      std::vector<int32_t> tokens = tokenizer_.encode(continuation, false);
      if (!tokens.empty() && tokens.front() == prefix_) return {{*prefix_}, {tokens.begin() + 1, tokens.end()}};
      if (!prefix_) throw InputError("an empty context, and the tokenizer has neither BOS nor EOS to stand for it");
      return {{*prefix_}, std::move(tokens)};
    }
    if (context != last_context_) {
      last_tokens_ = encode(context);
      last_context_ = context;
    }
    const std::vector<int32_t> whole = encode(context + continuation);
    if (whole.size() <= last_tokens_.size()) return {last_tokens_, {}};
    return {last_tokens_, {whole.begin() + static_cast<std::ptrdiff_t>(last_tokens_.size()), whole.end()}};
  }

 private:
  std::vector<int32_t> encode(const std::string& text) const { return tokenizer_.encode(text, prefix_text_.empty() || !text.starts_with(prefix_text_)); }

  const Tokenizer& tokenizer_;
  std::optional<int32_t> prefix_;
  std::string prefix_text_, last_context_;
  std::vector<int32_t> last_tokens_;  // of last_context_: an item's choices share it
};

int64_t best(const std::vector<double>& values, const std::vector<int64_t>& by = {}) {
  size_t best = 0;
  auto value = [&](size_t i) { return by.empty() ? values[i] : values[i] / static_cast<double>(by[i]); };
  for (size_t i = 1; i < values.size(); ++i)
    if (value(i) > value(best)) best = i;
  return static_cast<int64_t>(best);
}

Metric accuracy(std::string name, const std::vector<TaskAnswer>& answers, int64_t TaskAnswer::* chosen) {
  Metric metric;
  metric.name = std::move(name);
  for (const TaskAnswer& answer : answers) metric.values.push_back(answer.*chosen == answer.gold ? 1 : 0);
  const auto n = static_cast<double>(answers.size());
  metric.value = std::accumulate(metric.values.begin(), metric.values.end(), 0.0) / n;
  if (n > 1) metric.standard_error = std::sqrt(metric.value * (1 - metric.value) / (n - 1));
  return metric;
}

}  // namespace

std::vector<KnobInfo> task_knobs() {
  KnobInfo few_shot{"few_shot", "Examples", KnobType::integer, int64_t{0}, 0, 64, {}, "examples", "Items with their answers before each item, the first of the file without the item itself", "zero-shot, as the papers' tables", "as the task says, else none"};
  KnobInfo limit{"limit", "Items", KnobType::integer, int64_t{0}, 0, 1e9, {}, "items", "Only the first items of the file", "all, so that figures compare", "all items"};
  return {few_shot, limit};
}

std::vector<MetricInfo> task_metrics() {
  return {{"acc", "Accuracy", "", true, "Share of items whose likeliest choice, by its sum of log-probabilities, is right; lm-evaluation-harness's acc"},
          {"acc_norm", "Accuracy by length", "", true, "The same after dividing each sum by the choice's characters; lm-evaluation-harness's acc_norm"},
          {"acc_bytes", "Accuracy by bytes", "", true, "The same after dividing each sum by the choice's bytes in UTF-8; lm-evaluation-harness's acc_bytes"}};
}

namespace {

// One range for all that a call sees.
bool by_call(const QuantSpec& spec) { return spec.dynamic && spec.granularity == Granularity::tensor; }

}  // namespace

bool rounds_by_token(const QuantizedModel& model) {
  return std::none_of(model.linears.begin(), model.linears.end(), [](const QuantizedLinear& linear) { return linear.activations && by_call(*linear.activations); }) &&
         std::none_of(model.caches.begin(), model.caches.end(), [](const QuantizedCache& cache) { return by_call(cache.spec); });
}

bool rounds_by_token(const Scheme& scheme) { return !(scheme.activations && by_call(*scheme.activations)) && !(scheme.kv_cache && by_call(*scheme.kv_cache)); }

std::vector<Continuation> task_continuations(const Task& task, const Tokenizer& tokenizer, int64_t longest) {
  Encoder encoder(tokenizer);
  std::vector<Continuation> all;
  for (const TaskItem& item : task.items) {
    try {
      for (size_t c = 0; c < item.choices(); ++c) {
        auto [context, continuation] = encoder.pair(item.context(c), item.continuation(c));
        if (continuation.empty()) throw InputError(fmt::format("choice {} adds no token to its context", c));
        const auto asked = static_cast<int64_t>(continuation.size());
        if (longest > 0 && asked > longest) throw InputError(fmt::format("choice {} has {} tokens, but the model was made for at most {}", c, asked, longest));
        context.insert(context.end(), continuation.begin(), continuation.end());
        // The last token is predicted and not read: one more than the model takes.
        if (const auto size = static_cast<int64_t>(context.size()); longest > 0 && size > longest + 1) context.erase(context.begin(), context.begin() + (size - longest - 1));
        all.push_back({std::move(context), asked});
      }
    } catch (const InputError& e) {
      throw InputError(fmt::format("{}: {}", item.where, e.what()));
    }
  }
  return all;
}

TaskResult evaluate_task(std::shared_ptr<const Model> model, TensorSourcePtr source, const Tokenizer& tokenizer, const Task& task,
                         const ContinuationSpec& spec, const Control& control) {
  const auto start = std::chrono::steady_clock::now();
  if (task.items.empty()) throw InputError(fmt::format("task {}: no items", task.name));
  const std::vector<Continuation> wanted = task_continuations(task, tokenizer, longest_sequence(model->architecture));
  ContinuationSpec shown = spec;
  shown.stage = task.name;
  const std::vector<double> sums = log_probabilities(model, std::move(source), wanted, shown, control);
  TaskResult result;
  size_t next = 0;
  for (const TaskItem& item : task.items) {
    TaskAnswer answer{item.where, item.gold, {}};
    for (size_t c = 0; c < item.choices(); ++c) answer.log_probabilities.push_back(sums[next++]);
    answer.chosen = best(answer.log_probabilities);
    answer.chosen_norm = best(answer.log_probabilities, item.characters);
    answer.chosen_bytes = best(answer.log_probabilities, item.bytes);
    result.answers.push_back(std::move(answer));
  }
  EvaluationResult& e = result.evaluation;
  e.evaluator = "task";
  e.corpus = task.name;
  e.corpus_hash = task.hash;
  e.windows = static_cast<int64_t>(task.items.size());
  e.windows_total = task.total;
  for (const Continuation& c : wanted) e.corpus_tokens += static_cast<int64_t>(c.tokens.size());
  e.dtype = dtype_text(spec.dtype);
  e.settings = {{"few_shot", task.few_shot}, {"limit", e.windows < task.total ? e.windows : int64_t{0}}};
  e.metrics = {accuracy("acc", result.answers, &TaskAnswer::chosen), accuracy("acc_norm", result.answers, &TaskAnswer::chosen_norm),
               accuracy("acc_bytes", result.answers, &TaskAnswer::chosen_bytes)};
  e.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace qb
