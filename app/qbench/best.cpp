#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iostream>
#include <optional>

#include "cli.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/model/model.h"
#include "core/recipe/hardware.h"
#include "core/recipe/recipe.h"
#include "core/recipe/roofline.h"
#include "core/run/served_model.h"
#include "core/store/pareto.h"
#include "core/store/workspace.h"

namespace cli {
namespace {

struct Arguments {
  std::string workspace = "qbench-workspace", measures, hardware, output;
  std::vector<std::string> where, grep;
  double batch = 1, context = 4096, decode = 0, gigabytes = 0;
};

// Quality first, then what it costs: divergence where runs have it.
std::string standard_measures(const std::vector<const qb::RunReport*>& runs) {
  const bool divergence = std::any_of(runs.begin(), runs.end(), [](const auto* run) { return qb::find_evaluation(*run, "divergence", false); });
  return divergence ? "kl,size,time" : "ppl,size,time";
}

struct Candidate {
  const qb::RunReport* run = nullptr;
  std::optional<qb::SpeedPrediction> speed;
};

std::string values_text(const qb::ParetoRun& one, const std::vector<const qb::RunColumn*>& measures) {
  std::vector<std::string> parts;
  for (size_t m = 0; m < measures.size(); ++m) parts.push_back(fmt::format("{} {}", qb::column_heading(*measures[m]), qb::cell_text(*measures[m], qb::RunValue(one.values[m]))));
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::string speed_text(const qb::SpeedPrediction& speed, const Arguments& a) {
  return fmt::format("predicted on {}, batch {:g}, {:g} tokens of context: {:.0f} tokens/s of prefill, {:.1f} of decode (roofline: an upper bound)", a.hardware, a.batch, a.context, speed.prefill, speed.decode);
}

// The recipe, with why it was chosen as a comment on top.
std::string with_evidence(const qb::Workspace& workspace, const qb::ParetoRun& chosen, const std::vector<qb::ParetoRun>& all, const std::vector<const qb::RunColumn*>& measures, const std::string& speed) {
  std::string text = fmt::format("# Chosen among {} runs of {} by {}\n# run {}: {}\n", all.size(), chosen.run->model_name,
                                 fmt::join([&] { std::vector<std::string> keys; for (const auto* m : measures) keys.push_back(m->key); return keys; }(), ", "), chosen.run->id, values_text(chosen, measures));
  for (const qb::EvaluationResult& e : chosen.run->evaluations) text += fmt::format("# {}: {} ({})\n", qb::subject_text(e), qb::figure_text(e), qb::conditions_text(e));
  if (!speed.empty()) text += "# " + speed + "\n";
  for (const qb::ParetoRun& other : all)
    if (other.front && &other != &chosen) text += fmt::format("# also not beaten: {} ({})\n", other.run->name, values_text(other, measures));
  return text + qb::to_yaml(workspace.recipe(chosen.run->id));
}

int best(const Arguments& a, const Options& options) {
  const auto workspace = qb::Workspace::open(a.workspace, qb::Workspace::Absent::refuse);
  const std::vector<qb::RunReport> heads = workspace->list();
  qb::RunQuery query;
  query.add_condition("status=finished");
  for (const std::string& condition : a.where) query.add_condition(condition);
  for (const std::string& words : a.grep) query.add_words(words);
  std::vector<const qb::RunReport*> runs;
  for (const qb::RunReport& head : heads)
    if (query.accepts(head)) runs.push_back(&head);
  std::optional<qb::HardwareProfile> hardware;
  if (!a.hardware.empty()) hardware = qb::find_hardware(a.hardware);
  std::vector<Candidate> candidates;
  std::vector<std::string> left_out;
  for (const qb::RunReport* run : runs) {
    Candidate one{run, {}};
    if (a.gigabytes > 0 && static_cast<double>(run->model_bytes) > a.gigabytes * 1e9) {
      left_out.push_back(fmt::format("{}: {} is more than {:g} GB", run->name, bytes_text(static_cast<double>(run->model_bytes)), a.gigabytes));
      continue;
    }
    if (hardware) {
      const qb::RunReport whole = workspace->load(run->id);
      one.speed = qb::predict_speed(*hardware, qb::served_model(*qb::Model::open(run->model_path), workspace->recipe(run->id).scheme, &whole), {a.batch, a.context});
      if (!one.speed->fits || one.speed->decode < a.decode) {
        left_out.push_back(one.speed->fits ? fmt::format("{}: predicted {:.1f} tokens/s of decode on {}", run->name, one.speed->decode, hardware->name) : fmt::format("{}: does not fit into {}", run->name, hardware->name));
        continue;
      }
    }
    candidates.push_back(std::move(one));
  }
  runs.clear();
  for (const Candidate& one : candidates) runs.push_back(one.run);
  if (runs.empty()) throw qb::InputError(fmt::format("{}: no finished run is left to choose from{}", a.workspace, left_out.empty() ? "" : fmt::format(" ({})", fmt::join(left_out, "; "))));
  const qb::RunColumns measures = qb::parse_run_columns(a.measures.empty() ? standard_measures(runs) : a.measures);
  std::vector<qb::ParetoRun> found = qb::pareto(runs, measures);
  for (const qb::RunReport* run : runs)
    if (std::none_of(found.begin(), found.end(), [&](const auto& one) { return one.run == run; })) left_out.push_back(fmt::format("{}: lacks a figure, or has it under other conditions", run->name));
  const qb::ParetoRun* chosen = qb::recommended(found, measures);
  if (!chosen) throw qb::InputError(fmt::format("{}: no run has all of the measures{}", a.workspace, left_out.empty() ? "" : fmt::format(" ({})", fmt::join(left_out, "; "))));
  const auto speed_of = [&](const qb::ParetoRun& one) -> const std::optional<qb::SpeedPrediction>& { return std::find_if(candidates.begin(), candidates.end(), [&](const auto& c) { return c.run == one.run; })->speed; };
  const std::string speed = speed_of(*chosen) ? speed_text(*speed_of(*chosen), a) : "";
  if (!a.output.empty()) qb::write_atomically(a.output, with_evidence(*workspace, *chosen, found, measures, speed));
  if (options.json) {
    nlohmann::json list = nlohmann::json::array();
    for (const qb::ParetoRun& one : found) {
      nlohmann::json entry = {{"id", one.run->id}, {"name", one.run->name}, {"front", one.front}, {"beaten_by", one.beaten_by ? nlohmann::json(one.beaten_by->id) : nlohmann::json(nullptr)}};
      for (size_t m = 0; m < measures.size(); ++m) entry["figures"][measures[m]->key] = one.values[m];
      if (const auto& p = speed_of(one)) entry["predicted"] = {{"hardware", a.hardware}, {"prefill_tokens_per_second", p->prefill}, {"decode_tokens_per_second", p->decode}, {"memory_bytes", p->memory_bytes}};
      list.push_back(std::move(entry));
    }
    std::cout << nlohmann::json{{"best", chosen->run->id}, {"runs", list}, {"left_out", left_out}}.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
    return ok;
  }
  std::vector<std::string> header = {"run"};
  for (const qb::RunColumn* measure : measures) header.push_back(qb::column_heading(*measure));
  if (hardware) header.push_back("decode tok/s, predicted");
  header.push_back("");
  std::vector<std::vector<std::string>> rows;
  std::stable_sort(found.begin(), found.end(), [&](const auto& x, const auto& y) { return x.front != y.front ? x.front : measures[0]->higher_is_better ? x.values[0] > y.values[0] : x.values[0] < y.values[0]; });
  chosen = qb::recommended(found, measures);
  for (const qb::ParetoRun& one : found) {
    std::vector<std::string> row = {one.run->name};
    for (size_t m = 0; m < measures.size(); ++m) row.push_back(qb::cell_text(*measures[m], qb::RunValue(one.values[m])));
    if (hardware) row.push_back(speed_of(one) ? fmt::format("{:.1f}", speed_of(one)->decode) : "–");
    row.push_back(&one == chosen ? "take this one" : one.front ? "not beaten" : "beaten by " + one.beaten_by->name);
    rows.push_back(std::move(row));
  }
  std::vector<bool> texts(header.size(), false);
  texts.front() = texts.back() = true;
  print_table(header, rows, texts);
  for (const std::string& line : left_out) std::cout << "left out: " << line << '\n';
  std::cout << "A difference within twice its error, paired by window or item, counts as none.\n";
  if (!speed.empty()) std::cout << speed << '\n';
  std::cout << fmt::format("{}: {}\n", bold(chosen->run->name), values_text(*chosen, measures));
  if (!a.output.empty()) std::cout << fmt::format("{} written\n", a.output);
  return ok;
}

}  // namespace

void add_best(CLI::App& app, const Options& options, Action& action) {
  auto a = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("best", "Which recipe to take home: the runs that no other one beats, and one of them with its evidence");
  command->add_option("--workspace,-w", a->workspace, "Folder that keeps the runs")->capture_default_str();
  command->add_option("--measures,-m", a->measures, "Figures to compare by, the most important first: columns of qbench list (default: kl or ppl, then size, time)");
  command->add_option("--where", a->where, "Condition on a column, as in qbench list: bits<4.5, pipeline~gptq")->allow_extra_args(false);
  command->add_option("--grep", a->grep, "Words that stand in name, model, scheme, pipeline, tags")->allow_extra_args(false);
  command->add_option("--gb", a->gigabytes, "The model takes at most so many gigabytes")->check(CLI::PositiveNumber);
  CLI::Option* hardware = command->add_option("--hardware,-H", a->hardware, "Must fit there; its predicted speed is shown (qbench speed lists profiles)");
  command->add_option("--decode", a->decode, "At least so many predicted tokens/s of decode")->check(CLI::PositiveNumber)->needs(hardware);
  command->add_option("--batch,-b", a->batch, "Sequences at once")->check(CLI::Range(1.0, 1e6))->capture_default_str();
  command->add_option("--context,-c", a->context, "Tokens of each")->check(CLI::Range(1.0, 1e8))->capture_default_str();
  command->add_option("--output,-o", a->output, "Write the recipe, with its evidence in comments");
  command->callback([a, &options, &action] { action = [a, &options] { return best(*a, options); }; });
}

}  // namespace cli
