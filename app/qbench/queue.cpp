#include <fmt/format.h>

#include <iostream>
#include <optional>

#include "cli.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/recipe/settings.h"
#include "core/run/run_queue.h"

namespace cli {
namespace {

struct Arguments {
  std::string workspace = "qbench-workspace", device = "cpu", before;
  std::vector<std::string> recipes, runs, settings;
  std::optional<int> priority;
  bool first = false, last = false;
};

std::string state_of(const qb::QueuedRun& run) {
  using qb::Wish;
  if (run.owner) {
    const std::string who = qb::owner_text(*run.owner);
    return run.request.wish == Wish::hold ? "paused in " + who : run.request.wish == Wish::run ? "at work in " + who : "ending in " + who;
  }
  if (run.request.wish == Wish::hold) return "on hold";
  if (run.request.attempts >= qb::kMostAttempts) return fmt::format("died {} times in a row: {}", run.request.attempts, run.report.error);
  return run.report.status == qb::RunStatus::interrupted ? "waits, to go on: " + run.report.error : "waits";
}

int show(const Arguments& arguments, const Options& options) {
  const auto workspace = qb::Workspace::open(arguments.workspace, qb::Workspace::Absent::refuse);
  const auto queue = qb::queued_runs(*workspace);
  if (options.json) {
    nlohmann::json list = nlohmann::json::array();
    for (const qb::QueuedRun& run : queue) {
      nlohmann::json row = {{"run", run.report.id}, {"name", run.report.name}, {"status", qb::to_text(run.report.status)}, {"wish", qb::to_text(run.request.wish)}, {"device", run.request.device},
                            {"priority", run.request.priority}, {"attempts", run.request.attempts}, {"process", nullptr}, {"host", nullptr}};
      if (run.owner) {
        row["process"] = run.owner->process;
        row["host"] = run.owner->host;
      }
      list.push_back(std::move(row));
    }
    std::cout << list.dump() << '\n';
    return ok;
  }
  std::vector<std::vector<std::string>> rows;
  for (const qb::QueuedRun& run : queue) rows.push_back({run.report.name, run.report.id, run.request.device, std::to_string(run.request.priority), state_of(run)});
  if (rows.empty()) std::cout << "no run waits or is at work\n";
  else print_table({"run", "id", "device", "priority", "state"}, rows);
  return ok;
}

int add(const Arguments& arguments, const Options& options) {
  std::vector<qb::Recipe> recipes;
  for (const auto& path : arguments.recipes) recipes.push_back(qb::with_settings(qb::load_recipe(path), arguments.settings, std::filesystem::current_path()));
  const auto workspace = qb::Workspace::open(arguments.workspace);
  double place = qb::last_place(qb::queued_runs(*workspace));
  nlohmann::json made = nlohmann::json::array();
  for (const qb::Recipe& recipe : recipes) {
    const std::string id = workspace->create_run(recipe);
    qb::save_request(workspace->run_folder(id), {qb::Wish::run, arguments.device, arguments.priority.value_or(0), place++});
    made.push_back(id);
    if (!options.json) std::cout << id << '\n';
  }
  if (options.json) std::cout << made.dump() << '\n';
  return ok;
}

// Of the runs that are named, each request changed; where a run has none, `absent` says what then.
template <class Change>
int change(const Arguments& arguments, const Change& apply) {
  const auto workspace = qb::Workspace::open(arguments.workspace, qb::Workspace::Absent::refuse);
  for (const std::string& wanted : arguments.runs) {
    const std::string id = find_run(*workspace, wanted);
    const auto folder = workspace->run_folder(id);
    auto request = qb::load_request(folder);
    apply(*workspace, id, request);
    if (request) qb::save_request(folder, *request);
    else qb::drop_request(folder);
  }
  return ok;
}

void require_queued(const qb::Workspace& workspace, const std::string& id, const std::optional<qb::RunRequest>& request) {
  if (!request) throw qb::InputError(fmt::format("{}: the run neither waits nor is at work", workspace.run_folder(id).string()));
}

}  // namespace

void add_queue(CLI::App& app, const Options& options, Action& action) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("queue", "The runs of a workspace that wait or are at work, in any process and on any machine; `qbench work` carries them out");
  command->require_subcommand(0, 1);
  command->fallthrough();
  command->add_option("--workspace,-w", arguments->workspace, "Folder that keeps the runs")->capture_default_str();
  command->callback([arguments, &options, &action, command] {
    if (command->get_subcommands().empty()) action = [arguments, &options] { return show(*arguments, options); };
  });

  CLI::App* adding = command->add_subcommand("add", "Put recipes into the queue; prints the runs' ids");
  adding->add_option("recipes", arguments->recipes, "Recipe files (YAML)")->required();
  adding->add_option("--device,-d", arguments->device, "cpu, cuda:0 …")->envname("QBENCH_DEVICE")->capture_default_str();
  adding->add_option("--priority", arguments->priority, "Higher ones first [0]");
  adding->add_option("--set", arguments->settings, "Change a key of every recipe: scheme.weights.group_size=64 (may be repeated)")->allow_extra_args(false);
  adding->callback([arguments, &options, &action] { action = [arguments, &options] { return add(*arguments, options); }; });

  const auto on_runs = [&](const char* name, const char* help, auto apply) {
    CLI::App* one = command->add_subcommand(name, help);
    one->add_option("runs", arguments->runs, "Ids, or names that only one run has")->required();
    one->callback([arguments, apply, &action] { action = [arguments, apply] { return change(*arguments, apply); }; });
    return one;
  };
  on_runs("pause", "Let runs stand still where they are, or keep them waiting", [](const qb::Workspace& workspace, const std::string& id, std::optional<qb::RunRequest>& request) {
    require_queued(workspace, id, request);
    request->wish = qb::Wish::hold;
  });
  CLI::App* resuming = on_runs("resume", "Let paused runs go on; put cancelled, interrupted and failed ones back into the queue",
                               [arguments](const qb::Workspace& workspace, const std::string& id, std::optional<qb::RunRequest>& request) {
                                 if (!request) {
                                   if (workspace.load(id).status == qb::RunStatus::finished) throw qb::InputError(fmt::format("{}: the run is finished", workspace.run_folder(id).string()));
                                   request = qb::RunRequest{qb::Wish::run, arguments->device, 0, qb::last_place(qb::queued_runs(workspace))};
                                 }
                                 if (!request->task.empty() && !workspace.owner(id)) {  // it is not the cluster's any more
                                   request->task.clear();
                                   request->device = arguments->device;
                                 }
                                 request->wish = qb::Wish::run;
                                 request->attempts = 0;
                               });
  resuming->add_option("--device,-d", arguments->device, "Of runs that were not in the queue: cpu, cuda:0 …")->envname("QBENCH_DEVICE")->capture_default_str();
  on_runs("stop", "End runs at the next linear, or take waiting ones out of the queue", [](const qb::Workspace& workspace, const std::string& id, std::optional<qb::RunRequest>& request) {
    require_queued(workspace, id, request);
    if (workspace.owner(id)) request->wish = qb::Wish::stop;
    else request.reset();
  });
  on_runs("yield", "End runs after the block at work; they wait for their turn again, behind the others", [](const qb::Workspace& workspace, const std::string& id, std::optional<qb::RunRequest>& request) {
    require_queued(workspace, id, request);
    if (!workspace.owner(id)) return;
    request->place = qb::last_place(qb::queued_runs(workspace));
    request->wish = qb::Wish::stop_soon;
  });
  CLI::App* moving = on_runs("move", "Change runs' places in the queue", [arguments](const qb::Workspace& workspace, const std::string& id, std::optional<qb::RunRequest>& request) {
    require_queued(workspace, id, request);
    const auto queue = qb::queued_runs(workspace);
    if (arguments->priority) request->priority = *arguments->priority;
    if (arguments->last) request->place = qb::last_place(queue);
    if (!arguments->before.empty()) {
      const std::string other = find_run(workspace, arguments->before);
      request->place = qb::place_before(queue, id, other);
      request->priority = qb::load_request(workspace.run_folder(other))->priority;
    }
    if (arguments->first)
      for (const qb::QueuedRun& run : queue)
        if (run.report.id != id) request->place = std::min(request->place, run.request.place - 1);
  });
  auto* where = moving->add_option_group("where");
  where->add_option("--before", arguments->before, "Another run of the queue");
  where->add_flag("--first", arguments->first, "Before all of its priority");
  where->add_flag("--last", arguments->last, "Behind all of its priority");
  where->add_option("--priority", arguments->priority, "Higher ones first");
  where->require_option(1, 2);
}

}  // namespace cli
