#include "core/measure/evaluators.h"

#include <fmt/format.h>

#include <iostream>

#include "cli.h"
#include "core/base/error.h"

namespace cli {
namespace {

nlohmann::json as_json(const qb::EvaluatorInfo& e) {
  nlohmann::json metrics = nlohmann::json::array();
  for (const qb::MetricInfo& m : e.metrics) metrics.push_back({{"name", m.name}, {"title", m.title}, {"unit", m.unit}, {"higher_is_better", m.higher_is_better}, {"help", m.help}});
  return {{"name", e.name}, {"title", e.title}, {"help", e.help}, {"data", e.data == qb::EvaluationData::task ? "task" : "text"}, {"against_float", e.against_float},
          {"knobs", knobs_json(e.knobs)}, {"metrics", metrics}, {"headline", e.headline}};
}

int evaluators(const std::string& name, const Options& options) {
  std::vector<qb::EvaluatorInfo> chosen = qb::evaluators();
  if (!name.empty()) {
    const qb::EvaluatorInfo* one = qb::find_evaluator(name);
    if (!one) throw qb::InputError(qb::unknown_evaluator(name));
    chosen = {*one};
  }
  if (options.json) {
    nlohmann::json list = nlohmann::json::array();
    for (const auto& e : chosen) list.push_back(as_json(e));
    std::cout << list.dump(2) << '\n';
    return ok;
  }
  for (const auto& e : chosen) {
    std::cout << bold(e.name) << fmt::format("  {}\n    {}\n    on: {}{}\n", e.title, e.help,
                                             e.data == qb::EvaluationData::task ? "a task (corpus: its .jsonl, .json or .yaml file)" : "a text (corpus), in windows of seq_len tokens, of which `windows` are taken",
                                             e.against_float ? "; beside it stands the noise floor, the float model against itself" : "");
    print_knobs(e.knobs);
    for (const auto& m : e.metrics)
      std::cout << fmt::format("    {}{}: {}, {}\n        {}\n", m.name, m.unit.empty() ? "" : " (" + m.unit + ")", m.title, m.higher_is_better ? "higher is better" : "lower is better", m.help);
  }
  return ok;
}

}  // namespace

void add_evaluators(CLI::App& app, const Options& options, Action& action) {
  auto name = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("evaluators", "List what a recipe's evaluation list can measure, with settings and figures");
  command->add_option("name", *name, "Only this evaluator");
  command->callback([name, &options, &action] { action = [name, &options] { return evaluators(*name, options); }; });
}

}  // namespace cli
