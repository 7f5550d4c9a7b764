#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <optional>

#include "cli.h"
#include "core/base/error.h"
#include "core/measure/evaluators.h"
#include "core/measure/paired.h"
#include "core/measure/report_json.h"
#include "core/store/workspace.h"

namespace cli {
namespace {

struct Arguments {
  std::vector<std::string> runs;
  std::string workspace = "qbench-workspace", baseline;
  int worst = 5;
};

qb::RunReport find(const qb::Workspace& workspace, const std::string& wanted) { return workspace.load(find_run(workspace, wanted)); }

const qb::EvaluationResult* quantized_figure(const qb::RunReport& run) { return qb::find_evaluation(run, "perplexity", false); }
const qb::EvaluationResult* float_figure(const qb::RunReport& run) { return qb::find_evaluation(run, "perplexity", true); }

// The same evaluation in another report; nullptr: it has none.
const qb::EvaluationResult* same_of(const qb::RunReport& run, const qb::EvaluationResult& of, bool float_model) {
  const auto found = std::find_if(run.evaluations.begin(), run.evaluations.end(), [&](const qb::EvaluationResult& e) { return e.float_model == float_model && qb::same_conditions(e, of); });
  return found == run.evaluations.end() ? nullptr : &*found;
}

// What Δ is against what it is taken from, window by window or item by item.
struct Difference {
  std::string text = "–", test;
};
Difference difference(const qb::EvaluationResult& e, const qb::EvaluationResult* against) {
  const std::string& metric = e.metrics.front().name;
  if (!against || against == &e || against->values(metric).size() != e.values(metric).size() || e.values(metric).empty()) return {};
  const qb::PairedDifference paired = qb::paired_difference(against->values(metric), e.values(metric));
  Difference found{fmt::format("{:+.5g} ± {:.2g}", paired.difference, paired.standard_error), {}};
  const qb::EvaluatorInfo* evaluator = qb::find_evaluator(e.evaluator);
  if (!evaluator || evaluator->data != qb::EvaluationData::task) return found;
  const qb::McNemar test = qb::mcnemar(against->values(metric), e.values(metric));
  found.test = fmt::format("{} right only here, {} only there, p = {:.3g}", test.only_second, test.only_first, test.p_value);
  return found;
}

// A table for each evaluation but perplexities, of the runs that have it: its headline figures and Δ of the first.
void print_measures(const std::vector<qb::RunReport>& runs, const qb::RunReport* baseline) {
  std::vector<const qb::EvaluationResult*> kinds;
  for (const auto& run : runs)
    for (const auto& e : run.evaluations)
      if (!e.float_model && e.evaluator != "perplexity" && !e.metrics.empty() && std::none_of(kinds.begin(), kinds.end(), [&](const auto* other) { return qb::same_conditions(*other, e); })) kinds.push_back(&e);
  for (const qb::EvaluationResult* kind : kinds) {
    const qb::EvaluatorInfo* evaluator = qb::find_evaluator(kind->evaluator);
    if (!evaluator) continue;
    std::vector<std::string> header = {"run"};
    for (const std::string& name : evaluator->headline) header.push_back(qb::find_metric(evaluator->name, name)->title);
    header.insert(header.end(), {"Δ", ""});
    std::vector<std::vector<std::string>> rows;
    for (const auto& run : runs) {
      const qb::EvaluationResult* e = same_of(run, *kind, false);
      if (!e) continue;
      const qb::EvaluationResult* against = baseline ? same_of(*baseline, *kind, false) : same_of(run, *kind, true);
      std::vector<std::string> row = {run.name};
      for (const std::string& name : evaluator->headline) row.push_back(e->find(name) ? qb::value_text(*e, *e->find(name)) : "–");
      const Difference d = difference(*e, against);
      row.insert(row.end(), {d.text, d.test});
      rows.push_back(std::move(row));
    }
    for (const auto& run : runs)
      if (const qb::EvaluationResult* beside = same_of(run, *kind, true)) {
        rows.push_back({qb::subject_text(*beside)});
        for (const std::string& name : evaluator->headline) rows.back().push_back(beside->find(name) ? qb::value_text(*beside, *beside->find(name)) : "–");
        rows.back().insert(rows.back().end(), {"", ""});
        break;
      }
    std::vector<bool> texts(header.size(), false);
    texts.front() = texts.back() = true;
    std::cout << '\n';
    print_table(header, rows, texts);
    std::cout << fmt::format("{} on {}; Δ against {}, {} by {}\n", evaluator->title, qb::conditions_text(*kind), baseline ? baseline->name : evaluator->against_float ? "the noise floor" : "the float model",
                             evaluator->data == qb::EvaluationData::task ? "item" : "window", evaluator->data == qb::EvaluationData::task ? "item" : "window");
  }
}

int compare(const Arguments& arguments, const Options& options) {
  const auto workspace = qb::Workspace::open(arguments.workspace, qb::Workspace::Absent::refuse);
  std::vector<qb::RunReport> runs;
  if (arguments.runs.empty()) {
    for (const auto& head : workspace->list())
      if (head.status == qb::RunStatus::finished) runs.push_back(workspace->load(head.id));
    std::reverse(runs.begin(), runs.end());
  } else {
    for (const auto& name : arguments.runs) runs.push_back(find(*workspace, name));
  }
  if (runs.empty()) throw qb::InputError(fmt::format("{}: no finished runs to compare", workspace->folder().string()));
  bool one_model = std::all_of(runs.begin(), runs.end(), [&](const auto& run) { return run.model_hash == runs.front().model_hash; });
  std::optional<qb::RunReport> compared_to;
  std::optional<qb::EvaluationResult> base;  // without a given one a run's own float model is, where it was measured
  if (!arguments.baseline.empty()) {
    compared_to = find(*workspace, arguments.baseline);
    const qb::RunReport& baseline = *compared_to;
    const auto* p = quantized_figure(baseline);
    if (!p) throw qb::InputError(fmt::format("baseline {} has no perplexity", arguments.baseline));
    // Perplexities of two models tell nothing of a quantization: all runs stand for those of the baseline's, named ones must be of it.
    const auto foreign = [&](const qb::RunReport& run) { return run.model_hash != baseline.model_hash; };
    if (arguments.runs.empty()) std::erase_if(runs, foreign);
    if (const auto other = std::find_if(runs.begin(), runs.end(), foreign); other != runs.end())
      throw qb::InputError(fmt::format("baseline {} is a run of {} (hash {}), but {} is one of {} (hash {}); expected runs of one model", baseline.name, baseline.model_name, baseline.model_hash,
                                       other->name, other->model_name, other->model_hash));
    base = *p;
  } else if (const auto* p = float_figure(runs.front()); p && one_model) {
    base = *p;
  }
  one_model = one_model || !arguments.baseline.empty();
  if (options.json) {
    nlohmann::json list = nlohmann::json::array();
    for (const auto& run : runs) list.push_back(nlohmann::json::parse(qb::to_json(run)));
    std::cout << nlohmann::json{{"baseline_perplexity", base ? number(base->value("perplexity")) : nlohmann::json(nullptr)}, {"runs", list}}.dump() << '\n';
    return ok;
  }
  // Of the whole model where all runs know it: older ones do not.
  const bool whole = std::all_of(runs.begin(), runs.end(), [](const auto& run) { return run.model_bytes > 0; });
  std::vector<std::vector<std::string>> rows;
  const qb::EvaluationResult* first = nullptr;
  bool same = true;
  for (const auto& run : runs) {
    const auto* p = quantized_figure(run);
    const auto* own = arguments.baseline.empty() ? float_figure(run) : nullptr;
    const auto* against = own ? own : base ? &*base : nullptr;
    if (p) {
      if (!first) first = p;
      same = same && qb::same_conditions(*first, *p);
    }
    rows.push_back({run.name, run.scheme, run.pipeline, p ? fmt::format("{:.4f} ± {:.3f}", p->value("perplexity"), p->error("perplexity")) : "–",
                    p && against && qb::same_conditions(*p, *against) ? fmt::format("{:+.4f}", p->value("perplexity") - against->value("perplexity")) : "–", fmt::format("{:.3f}", run.bits_per_weight),
                    bytes_text(static_cast<double>(whole ? run.model_bytes : run.quantized_bytes)), seconds_text(run.quantize_seconds), bytes_text(static_cast<double>(run.peak_rss_bytes))});
  }
  print_table({"run", "scheme", "pipeline", "perplexity", "Δ", "bits/weight", whole ? "model" : "linears", "time", "peak memory"}, rows);
  std::vector<std::string> shown;
  for (const auto& run : runs) {
    const auto* p = float_figure(run);
    if (!p || std::find(shown.begin(), shown.end(), run.model_hash) != shown.end()) continue;
    std::cout << fmt::format("float model{}: {:.4f} ± {:.3f}\n", one_model ? "" : " " + run.model_name, p->value("perplexity"), p->error("perplexity"));
    shown.push_back(run.model_hash);
  }
  if (first) std::cout << (same ? "Perplexity on " + qb::conditions_text(*first) : std::string("Perplexities were measured under different conditions and do not compare; see each run")) << '\n';
  if (!arguments.baseline.empty()) std::cout << "Δ against " << arguments.baseline << '\n';
  print_measures(runs, compared_to ? &*compared_to : nullptr);
  for (const auto& run : runs) {
    std::vector<const qb::LinearReport*> linears;
    for (const auto& block : run.blocks)
      for (const auto& linear : block.linears)
        if (!std::isnan(linear.output_relative_error)) linears.push_back(&linear);
    const size_t count = std::min<size_t>(linears.size(), static_cast<size_t>(std::max(0, arguments.worst)));
    if (count == 0) continue;
    std::partial_sort(linears.begin(), linears.begin() + static_cast<std::ptrdiff_t>(count), linears.end(),
                      [](auto* a, auto* b) { return a->output_relative_error > b->output_relative_error; });
    size_t width = 0;
    for (size_t i = 0; i < count; ++i) width = std::max(width, linears[i]->name.size());
    std::cout << '\n' << bold(run.name) << ": largest output relative errors\n";
    for (size_t i = 0; i < count; ++i)
      std::cout << fmt::format("  block {:<3} {:<{}} {:.4f}  ({:.1f} dB)\n", linears[i]->block, linears[i]->name, width, linears[i]->output_relative_error, linears[i]->output_sqnr_db);
  }
  return ok;
}

}  // namespace

void print_comparison(const std::string& workspace, const std::vector<std::string>& runs) {
  Arguments arguments;
  arguments.workspace = workspace;
  arguments.runs = runs;
  arguments.worst = 0;
  compare(arguments, {});
}

std::string find_run(const qb::Workspace& workspace, const std::string& wanted) {
  std::vector<std::string> ids;
  for (const auto& head : workspace.list()) {
    if (head.id == wanted) return head.id;
    if (head.name == wanted) ids.push_back(head.id);
  }
  if (ids.empty()) throw qb::InputError(fmt::format("{}: there is no run \"{}\"", workspace.folder().string(), wanted));
  if (ids.size() > 1) throw qb::InputError(fmt::format("{}: {} runs are named \"{}\"; give an id, such as {}", workspace.folder().string(), ids.size(), wanted, ids.front()));
  return ids.front();
}

void add_compare(CLI::App& app, const Options& options, Action& action) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("compare", "Compare runs of a workspace");
  command->add_option("runs", arguments->runs, "Ids or names (default: all finished runs)");
  command->add_option("--workspace,-w", arguments->workspace, "Folder that keeps the runs")->capture_default_str();
  command->add_option("--baseline", arguments->baseline, "Run that Δ refers to (default: the float model)");
  command->add_option("--worst", arguments->worst, "How many of the worst linears to show")->capture_default_str();
  command->callback([arguments, &options, &action] { action = [arguments, &options] { return compare(*arguments, options); }; });
}

}  // namespace cli
