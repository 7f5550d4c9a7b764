#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iostream>

#include "chosen_runs.h"
#include "report.h"
#include "core/base/command.h"
#include "core/base/error.h"
#include "core/store/workspace.h"

namespace cli {
namespace {

namespace fs = std::filesystem;

struct Arguments {
  std::vector<std::string> runs, where, grep;
  std::string workspace = "qbench-workspace", output, title, measures, hardware, engine;
  double batch = 1, context = 4096, gigabytes = 0;
};

// The window's program draws the pictures: it stands beside this one.
fs::path workbench_program() {
  std::error_code error;
  fs::path beside = fs::read_symlink("/proc/self/exe", error).parent_path() / "qbench-workbench";
  if (const char* named = std::getenv("QBENCH_WORKBENCH"); named && *named) beside = named;
  if (!fs::exists(beside, error)) throw qb::ResourceError(fmt::format("{}: there is no such program; it draws a report's pictures, and QBENCH_WORKBENCH may name it", beside.string()));
  return beside;
}

int report(const Arguments& a, const Options& options) {
  const auto workspace = qb::Workspace::open(a.workspace, qb::Workspace::Absent::refuse);
  std::vector<std::string> runs;
  for (const std::string& wanted : a.runs) runs.push_back(find_run(*workspace, wanted));
  if (runs.empty()) {
    for (const qb::RunReport& run : finished_runs(*workspace, a.where, a.grep)) runs.push_back(run.id);
    std::reverse(runs.begin(), runs.end());  // oldest first
    if (runs.empty()) throw qb::InputError(fmt::format("{}: no finished run{} to report", a.workspace, a.where.empty() && a.grep.empty() ? "" : " that meets the conditions"));
  }
  std::vector<std::string> words = {workbench_program().string(), "--report", a.output, "--workspace", a.workspace, "--batch", fmt::format("{}", a.batch), "--context", fmt::format("{}", a.context)};
  const auto hand_on = [&](const char* name, const std::string& value) {
    if (!value.empty()) words.insert(words.end(), {name, value});
  };
  for (const std::string& run : runs) hand_on("--run", run);
  hand_on("--report-title", a.title);
  hand_on("--measures", a.measures);
  hand_on("--hardware", a.hardware);
  hand_on("--engine", a.engine);
  if (a.gigabytes > 0) hand_on("--gb", fmt::format("{}", a.gigabytes));
  const qb::CommandResult done = qb::run_command(words);
  if (done.code != 0) {
    std::string said = done.err;  // its last line is ours, others may be Qt's
    while (!said.empty() && said.back() == '\n') said.pop_back();
    said.erase(0, said.rfind('\n') + 1);
    std::cerr << "qbench: " << (said.empty() ? fmt::format("{} ended with code {}", words.front(), done.code) : said) << '\n';
    return done.code;
  }
  std::error_code error;
  const auto bytes = fs::file_size(a.output, error);
  if (options.json) std::cout << nlohmann::json{{"report", a.output}, {"runs", runs}, {"bytes", bytes}}.dump() << '\n';
  else std::cout << fmt::format("{} written: {} {}, {}\n", a.output, runs.size(), runs.size() == 1 ? "run" : "runs", bytes_text(static_cast<double>(bytes)));
  return ok;
}

}  // namespace

void add_report(CLI::App& app, const Options& options, Action& action) {
  auto a = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("report", "A report of runs as one file to hand on: which to take and why, tables, pictures, cost, recipes and versions");
  auto* runs = command->add_option("runs", a->runs, "Ids or names (default: all finished runs)");
  command->add_option("--output,-o", a->output, "File that ends in .html or .pdf")->required();
  command->add_option("--workspace,-w", a->workspace, "Folder that keeps the runs")->capture_default_str();
  command->add_option("--where", a->where, "Condition on a column, as in qbench list: bits<4.5, pipeline~gptq")->allow_extra_args(false)->excludes(runs);
  command->add_option("--grep", a->grep, "Words that stand in name, model, scheme, pipeline, tags")->allow_extra_args(false)->excludes(runs);
  command->add_option("--title", a->title, "Its title");
  command->add_option("--measures,-m", a->measures, "Figures that decide which run to take, the most important first (default: kl or ppl, then size, time)");
  command->add_option("--gb", a->gigabytes, "The run to take has at most so many gigabytes")->check(CLI::PositiveNumber);
  command->add_option("--engine,-e", a->engine, "The run to take loads there, in some format");
  CLI::Option* hardware = command->add_option("--hardware,-H", a->hardware, "Add the speed predicted there (qbench speed lists profiles)");
  command->add_option("--batch,-b", a->batch, "Sequences at once")->check(CLI::Range(1.0, 1e6))->needs(hardware)->capture_default_str();
  command->add_option("--context,-c", a->context, "Tokens of each")->check(CLI::Range(1.0, 1e8))->needs(hardware)->capture_default_str();
  command->callback([a, &options, &action] { action = [a, &options] { return report(*a, options); }; });
}

}  // namespace cli
