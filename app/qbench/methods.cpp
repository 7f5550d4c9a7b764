#include <fmt/format.h>
#include <fmt/ranges.h>

#include <iostream>
#include <map>

#include "cli.h"
#include "core/base/error.h"
#include "core/method/contracts.h"

namespace cli {
namespace {

std::vector<std::string> names(qb::Traces traces) {
  std::vector<std::string> list;
  for (const qb::Trace trace : {qb::Trace::transforms, qb::Trace::scaled, qb::Trace::range, qb::Trace::zeros, qb::Trace::codes, qb::Trace::grid, qb::Trace::tuned})
    if (traces.has(trace)) list.push_back(qb::to_text(trace));
  return list;
}

// Stages that this one cannot follow, each with the reason.
std::map<std::string, std::string> not_after(const qb::MethodInfo& m) {
  std::map<std::string, std::string> list;
  for (const auto& earlier : qb::methods())
    if (const auto problem = qb::pipeline_problem({{earlier.name, {}}, {m.name, {}}}, {}); problem && problem->stage == 1) list.emplace(earlier.name, problem->what);
  return list;
}

nlohmann::json as_json(const qb::MethodInfo& m) {
  return {{"name", m.name}, {"title", m.title}, {"class", qb::to_text(m.kind)}, {"help", m.help}, {"source", m.source},
          {"needs_calibration", m.needs_calibration}, {"needs", names(m.contract.needs)}, {"takes", names(m.contract.takes)},
          {"keeps", names(m.contract.keeps)}, {"leaves", names(m.contract.leaves)}, {"not_after", not_after(m)}, {"knobs", knobs_json(m.knobs)}};
}

int methods(const std::string& name, const Options& options) {
  std::vector<qb::MethodInfo> chosen = qb::methods();
  if (!name.empty()) {
    const qb::MethodInfo* one = qb::find_method(name);
    if (!one) throw qb::InputError(qb::stage_problem({name, {}}));
    chosen = {*one};
  }
  if (options.json) {
    nlohmann::json list = nlohmann::json::array();
    for (const auto& m : chosen) list.push_back(as_json(m));
    std::cout << list.dump(2) << '\n';
    return ok;
  }
  for (const auto& m : chosen) {
    std::cout << bold(m.name) << fmt::format("  {} ({}){}\n    {}\n    source: {}\n", m.title, qb::to_text(m.kind),
                                             m.needs_calibration ? ", needs calibration text" : "", m.help, m.source);
    for (const auto& [word, traces] : {std::pair{"needs", m.contract.needs}, {"takes", m.contract.takes}, {"keeps", m.contract.keeps}, {"leaves", m.contract.leaves}})
      if (traces.bits != 0) std::cout << fmt::format("    {}: {}\n", word, fmt::join(names(traces), ", "));
    if (!name.empty())
      for (const auto& [earlier, why] : not_after(m)) std::cout << fmt::format("    not after {}: {}\n", earlier, why);
    print_knobs(m.knobs);
  }
  return ok;
}

}  // namespace

void add_methods(CLI::App& app, const Options& options, Action& action) {
  auto name = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("methods", "List the methods and their knobs");
  command->add_option("name", *name, "Only this method");
  command->callback([name, &options, &action] { action = [name, &options] { return methods(*name, options); }; });
}

}  // namespace cli
