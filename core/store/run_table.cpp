#include "core/store/run_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "core/base/error.h"

namespace qb {
namespace {

constexpr double kMega = 1e6;

RunValue text(const std::string& value) { return value.empty() ? RunValue() : RunValue(value); }
RunValue figure(double value) { return value; }
RunValue known(double value) { return value > 0 ? RunValue(value) : RunValue(); }  // 0 stands for: not measured

const EvaluationResult* perplexity(const RunReport& run, bool float_model) { return find_evaluation(run, "perplexity", float_model); }

RunValue metric(const RunReport& run, const char* evaluator, const char* name) {
  const EvaluationResult* found = find_evaluation(run, evaluator, false);
  return found && found->find(name) ? RunValue(found->value(name)) : RunValue();
}

// What Δ is taken against: the baseline's figure where it is of the same model and text, else the run's own float model's.
const EvaluationResult* reference(const RunReport& run, const EvaluationResult& of, const RunReport* baseline) {
  if (baseline)
    return [&]() -> const EvaluationResult* {
      if (baseline->model_hash != run.model_hash) return nullptr;
      for (const EvaluationResult& p : baseline->evaluations)
        if (!p.float_model && same_conditions(p, of)) return &p;
      return nullptr;
    }();
  for (const EvaluationResult& p : run.evaluations)
    if (p.float_model && same_conditions(p, of)) return &p;
  return nullptr;
}

std::string joined(const std::vector<std::string>& words, const char* between) {
  std::string all;
  for (const std::string& word : words) all += (all.empty() ? "" : between) + word;
  return all;
}

// Ids begin with when they were made, "20261128-222640-…"; a folder that somebody named otherwise has the day of its start.
RunValue day(const RunReport& run) {
  const auto digits = [&](size_t from, size_t count) { return run.id.size() >= from + count && std::all_of(run.id.begin() + long(from), run.id.begin() + long(from + count), [](char c) { return c >= '0' && c <= '9'; }); };
  if (digits(0, 8) && run.id.size() > 8 && run.id[8] == '-') return run.id.substr(0, 4) + "-" + run.id.substr(4, 2) + "-" + run.id.substr(6, 2);
  return text(run.started.substr(0, 10));
}

#define QB_VALUE [](const RunReport & run, [[maybe_unused]] const RunReport* baseline) -> RunValue
std::vector<RunColumn> make_columns() {
  using enum RunColumnKind;
  return {
      {"name", "Name", "", "The recipe's, or the one given since", RunColumnKind::text, 0, true, QB_VALUE { return qb::text(run.name); }},
      {"status", "Status", "", "How far it is", RunColumnKind::text, 0, true, QB_VALUE { return to_text(run.status); }},
      {"scheme", "Scheme", "", "What is quantized, to what", RunColumnKind::text, 0, true, QB_VALUE { return qb::text(run.scheme); }},
      {"pipeline", "Pipeline", "", "Methods, in order", RunColumnKind::text, 0, true, QB_VALUE { return qb::text(run.pipeline); }},
      {"ppl", "Perplexity", "", "Of the quantized model on the first text evaluated; lower is better. Compare runs of equal conditions only: column text", RunColumnKind::figure, 4, true,
       QB_VALUE { const auto* p = perplexity(run, false); return p ? qb::figure(p->value("perplexity")) : RunValue(); }},
      {"delta", "Δ", "", "Perplexity above the baseline's of the same model and conditions; without a baseline, above the float model's", RunColumnKind::figure, 4, true, QB_VALUE {
         const auto* p = perplexity(run, false);
         const auto* against = p ? reference(run, *p, baseline) : nullptr;
         return against ? qb::figure(p->value("perplexity") - against->value("perplexity")) : RunValue();
       }},
      {"kl", "KL", "nats", "Mean KL divergence of predictions from the float model's, on the first text that it is measured on", RunColumnKind::figure, 5, true,
       QB_VALUE { return metric(run, "divergence", "kl"); }},
      {"acc", "Accuracy", "", "On the first task: share of items whose likeliest choice is right", RunColumnKind::figure, 4, false, QB_VALUE { return metric(run, "task", "acc"); }, true},
      {"acc_norm", "Accuracy by length", "", "The same after dividing by the choices' characters", RunColumnKind::figure, 4, false, QB_VALUE { return metric(run, "task", "acc_norm"); }, true},
      {"bits", "Bits", "", "Per quantized weight, scales and zero points included", RunColumnKind::figure, 3, true, QB_VALUE { return qb::known(run.bits_per_weight); }},
      {"size", "Size", "MB", "Of the whole quantized model", RunColumnKind::figure, 1, true, QB_VALUE { return qb::known(double(run.model_bytes) / kMega); }},
      {"time", "Time", "s", "Calibration, quantization and its measurement; without loading and evaluation", RunColumnKind::figure, 1, true, QB_VALUE { return qb::known(run.quantize_seconds); }},
      {"memory", "Memory", "MB", "Peak of the host's", RunColumnKind::figure, 0, true, QB_VALUE { return qb::known(double(run.peak_rss_bytes) / kMega); }},
      {"tags", "Tags", "", "The user's", RunColumnKind::text, 0, true, QB_VALUE { return qb::text(joined(run.tags, ", ")); }},
      {"date", "Date", "", "The day on which it was made, UTC", RunColumnKind::time, 0, true, QB_VALUE { return day(run); }},
      {"model", "Model", "", "The float model's name", RunColumnKind::text, 0, true, QB_VALUE { return qb::text(run.model_name); }},
      {"id", "Id", "", "Name of its folder", RunColumnKind::text, 0, false, QB_VALUE { return qb::text(run.id); }},
      {"sweep", "Sweep", "", "That it is one of", RunColumnKind::text, 0, false, QB_VALUE { return qb::text(run.sweep); }},
      {"notes", "Notes", "", "The user's", RunColumnKind::text, 0, false, QB_VALUE { return qb::text(run.notes); }},
      {"error", "Error", "", "Why it failed or stopped", RunColumnKind::text, 0, false, QB_VALUE { return qb::text(run.error); }},
      {"ppl_error", "± Perplexity", "", "Standard error of the perplexity, from the spread of window means", RunColumnKind::figure, 4, false,
       QB_VALUE { const auto* p = perplexity(run, false); return p ? qb::figure(p->error("perplexity")) : RunValue(); }},
      {"float_ppl", "Float perplexity", "", "Of the float model on the first text evaluated", RunColumnKind::figure, 4, false,
       QB_VALUE { const auto* p = perplexity(run, true); return p ? qb::figure(p->value("perplexity")) : RunValue(); }},
      {"text", "Text", "", "Conditions of the perplexity", RunColumnKind::text, 0, false, QB_VALUE { const auto* p = perplexity(run, false); return p ? RunValue(conditions_text(*p)) : RunValue(); }},
      {"kl_error", "± KL", "nats", "Standard error of the mean KL divergence, over tokens", RunColumnKind::figure, 5, false,
       QB_VALUE { const auto* d = find_evaluation(run, "divergence", false); return d ? qb::figure(d->error("kl")) : RunValue(); }},
      {"kl_p99", "KL 99 %", "nats", "99 % of the tokens have a KL divergence of at most this", RunColumnKind::figure, 4, false, QB_VALUE { return metric(run, "divergence", "kl_p99"); }},
      {"same_top", "Same top", "%", "Share of tokens where both models find the same token most probable", RunColumnKind::figure, 2, false, QB_VALUE { return metric(run, "divergence", "same_top"); }, true},
      {"kl_floor", "KL floor", "nats", "The float model's own divergence in the evaluation's number type: what no quantization can be blamed for", RunColumnKind::figure, 6, false,
       QB_VALUE { const auto* d = find_evaluation(run, "divergence", true); return d ? qb::figure(d->value("kl")) : RunValue(); }},
      {"compression", "Compression", "×", "The float model's size over the quantized one's", RunColumnKind::figure, 2, false,
       QB_VALUE { return run.model_bytes > 0 && run.model_float_bytes > 0 ? qb::figure(double(run.model_float_bytes) / double(run.model_bytes)) : RunValue(); }, true},
      {"linears", "Linears", "MB", "Quantized linears in blocks", RunColumnKind::figure, 1, false, QB_VALUE { return qb::known(double(run.quantized_bytes) / kMega); }},
      {"load_time", "Load", "s", "Opening the model and tokenizing", RunColumnKind::figure, 1, false, QB_VALUE { return qb::known(run.load_seconds); }},
      {"measure_time", "Measure", "s", "The part of Time that went into block reports", RunColumnKind::figure, 1, false, QB_VALUE { return qb::known(run.measure_seconds); }},
      {"evaluate_time", "Evaluate", "s", "Perplexities", RunColumnKind::figure, 1, false, QB_VALUE { return qb::known(run.evaluate_seconds); }},
      {"gpu_memory", "GPU memory", "MB", "Peak of what tensors took", RunColumnKind::figure, 0, false, QB_VALUE { return qb::known(double(run.peak_device_bytes) / kMega); }},
      {"tokens", "Calibration", "tokens", "Tokens that it was calibrated on", RunColumnKind::figure, 0, false, QB_VALUE { return qb::known(double(run.calibration_tokens)); }},
      {"cached", "Cached", "blocks", "Blocks whose statistics an earlier run had collected", RunColumnKind::figure, 0, false, QB_VALUE { return qb::known(double(run.statistics_cached_blocks)); }},
      {"seed", "Seed", "", "Of what is drawn at random", RunColumnKind::figure, 0, false, QB_VALUE { return qb::figure(double(run.seed)); }},
      {"started", "Started", "", "UTC", RunColumnKind::time, 0, false, QB_VALUE { return qb::text(run.started); }},
      {"finished", "Finished", "", "UTC", RunColumnKind::time, 0, false, QB_VALUE { return qb::text(run.finished); }},
      {"device", "Device", "", "That it was computed on", RunColumnKind::text, 0, false, QB_VALUE { return qb::text(run.environment.device); }},
      {"host", "Host", "", "That it was carried out on", RunColumnKind::text, 0, false, QB_VALUE { return qb::text(run.environment.host); }},
      {"recipe", "Recipe", "", "Hash of the recipe: equal ones give equal results", RunColumnKind::text, 0, false, QB_VALUE { return qb::text(run.recipe_hash); }},
      {"model_hash", "Model's hash", "", "Of its contents", RunColumnKind::text, 0, false, QB_VALUE { return qb::text(run.model_hash); }},
      {"model_path", "Model's path", "", "Where it lay", RunColumnKind::text, 0, false, QB_VALUE { return qb::text(run.model_path); }},
  };
}
#undef QB_VALUE

bool missing(const RunValue& value) {
  const double* number = std::get_if<double>(&value);
  return std::holds_alternative<std::monostate>(value) || (number && std::isnan(*number));
}

}  // namespace

const std::vector<RunColumn>& run_columns() {
  static const std::vector<RunColumn> columns = make_columns();
  return columns;
}

const RunColumn& run_column(const std::string& key) {
  const auto& columns = run_columns();
  const auto found = std::find_if(columns.begin(), columns.end(), [&](const RunColumn& column) { return column.key == key; });
  if (found != columns.end()) return *found;
  std::vector<std::string> keys;
  for (const RunColumn& column : columns) keys.push_back(column.key);
  throw InputError(fmt::format("runs have no column \"{}\"; there are {}", key, joined(keys, ", ")));
}

std::string column_heading(const RunColumn& column) { return column.unit.empty() ? column.title : fmt::format("{} ({})", column.title, column.unit); }

std::string cell_text(const RunColumn& column, const RunValue& value) {
  if (missing(value)) return "–";
  if (const auto* words = std::get_if<std::string>(&value)) return *words;
  const double number = std::get<double>(value);
  if (std::abs(number) >= 1e9 && std::isfinite(number)) return fmt::format("{:.3e}", number);
  return column.key == "delta" ? fmt::format("{:+.{}f}", number, column.decimals) : fmt::format("{:.{}f}", number, column.decimals);
}

std::vector<RunOrder> parse_run_order(const std::string& text) {
  std::vector<RunOrder> order;
  for (size_t from = 0; from <= text.size();) {
    const size_t to = std::min(text.find(',', from), text.size());
    std::string key = text.substr(from, to - from);
    const bool descending = key.starts_with('-');
    if (descending) key.erase(0, 1);
    order.push_back({&run_column(key), descending});
    from = to + 1;
  }
  return order;
}

void sort_runs(std::vector<const RunReport*>& runs, const std::vector<RunOrder>& order, const RunReport* baseline) {
  // Each value is taken once: a text of conditions is made anew whenever it is asked for.
  struct Row {
    const RunReport* run;
    std::vector<RunValue> values;
  };
  std::vector<Row> rows;
  for (const RunReport* run : runs) {
    rows.push_back({run, {}});
    for (const RunOrder& by : order) rows.back().values.push_back(by.column->value(*run, baseline));
  }
  std::stable_sort(rows.begin(), rows.end(), [&](const Row& a, const Row& b) {
    for (size_t i = 0; i < order.size(); ++i) {
      const bool no_a = missing(a.values[i]), no_b = missing(b.values[i]);
      if (no_a != no_b) return no_b;
      if (no_a || a.values[i] == b.values[i]) continue;
      return order[i].descending ? b.values[i] < a.values[i] : a.values[i] < b.values[i];
    }
    return false;
  });
  std::transform(rows.begin(), rows.end(), runs.begin(), [](const Row& row) { return row.run; });
}

RunColumns standard_columns() {
  RunColumns columns;
  for (const RunColumn& column : run_columns())
    if (column.standard) columns.push_back(&column);
  return columns;
}

RunColumns parse_run_columns(const std::string& text) {
  RunColumns columns;
  if (text == "all") {
    for (const RunColumn& column : run_columns()) columns.push_back(&column);
    return columns;
  }
  for (size_t from = 0; from <= text.size();) {
    const size_t to = std::min(text.find(',', from), text.size());
    columns.push_back(&run_column(text.substr(from, to - from)));
    from = to + 1;
  }
  return columns;
}

}  // namespace qb
