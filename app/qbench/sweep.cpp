#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <optional>
#include <set>

#include "cli.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/measure/report_json.h"
#include "core/recipe/sweep.h"
#include "core/run/run.h"
#include "core/run/slurm.h"
#include "core/store/run_events.h"
#include "core/store/run_request.h"
#include "core/run/sweep_survey.h"
#include "run_all.h"

namespace cli {
namespace {

namespace fs = std::filesystem;

struct Arguments {
  std::string file, workspace = "qbench-workspace", device = "cpu";
  std::vector<std::string> settings;
  std::optional<double> statistics_cache;  // GB
  std::vector<std::string> slurm;          // options of sbatch
  std::vector<std::string> names;          // of status and cancel: runs
  bool dry_run = false, quiet = false, device_given = false;

  qb::RunOptions run_options(int threads = 0) const {
    qb::RunOptions options{device, {}};
    options.threads = threads;
    if (statistics_cache) options.statistics_cache_bytes = std::llround(*statistics_cache * 1e9);
    return options;
  }
};

using qb::SweepRow;

// What all recipes are, and what became of them so far. A file that grows is read again.
class Night {
 public:
  Night(const Arguments& arguments, std::shared_ptr<qb::Workspace> workspace)
      : arguments_(arguments), workspace_(std::move(workspace)), planner_(arguments.run_options(), arguments.workspace) {
    text_ = qb::read_text(arguments.file, 4 << 20);
    take(load());
  }

  const qb::Sweep& sweep() const { return sweep_; }
  const std::vector<SweepRow>& rows() const { return rows_; }
  void set_workspace(std::shared_ptr<qb::Workspace> workspace) { workspace_ = std::move(workspace); }
  void look_at_runs() {
    if (workspace_) qb::find_runs(rows_, *workspace_);
  }
  void estimate() { qb::estimate_costs(rows_, workspace_.get(), arguments_.device); }

  // All that is to be carried out, in order.
  std::vector<Turn> all() {
    std::vector<Turn> turns;
    while (auto turn = next()) turns.push_back(*std::move(turn));
    return turns;
  }

  std::optional<Turn> next() {
    look_again();
    look_at_runs();
    for (const SweepRow& row : rows_)
      if (row.waits() && tried_.insert(qb::recipe_hash(row.entry.recipe)).second) return Turn{row.entry.recipe, row.run, sweep_.name};
    return std::nullopt;
  }

 private:
  qb::Sweep load() const { return qb::load_sweep(arguments_.file, arguments_.settings, fs::current_path()); }

  void take(qb::Sweep sweep) {
    rows_ = qb::plan_sweep(sweep, planner_, std::move(rows_));
    sweep_ = std::move(sweep);
    look_at_runs();
  }

  // A file that cannot be read now is told of, and the recipes stay as they are.
  void look_again() {
    try {
      const std::string text = qb::read_text(arguments_.file, 4 << 20);
      if (text == text_) return;
      qb::Sweep sweep = load();
      text_ = text;
      std::set<std::string> before;
      for (const SweepRow& row : rows_) before.insert(qb::recipe_hash(row.entry.recipe));
      take(std::move(sweep));
      const auto joined = [&](const SweepRow& row) { return !before.contains(qb::recipe_hash(row.entry.recipe)); };
      std::cerr << fmt::format("qbench: {} was changed: {} recipes, {} of them new\n", arguments_.file, rows_.size(), std::count_if(rows_.begin(), rows_.end(), joined));
      for (const SweepRow& row : rows_)
        if (joined(row) && !row.plan) std::cerr << fmt::format("qbench: {} is left out: {}\n", row.entry.recipe.name, row.refusal);
    } catch (const qb::Error& e) {
      std::cerr << fmt::format("qbench: {} was changed and cannot be read; going on with what it was: {}\n", arguments_.file, e.what());
    }
  }

  const Arguments& arguments_;
  std::shared_ptr<qb::Workspace> workspace_;
  qb::RunPlanner planner_;
  std::string text_;
  qb::Sweep sweep_;
  std::vector<SweepRow> rows_;
  std::set<std::string> tried_;
};

nlohmann::json values_json(const std::vector<qb::SweepValue>& values) {
  nlohmann::json json = nlohmann::json::object();
  for (const qb::SweepValue& value : values) json[value.key] = value.value;
  return json;
}

nlohmann::json as_json(const Night& night) {
  nlohmann::json recipes = nlohmann::json::array(), omitted = nlohmann::json::array(), refused = nlohmann::json::array();
  for (const SweepRow& row : night.rows()) {
    if (!row.plan) {
      refused.push_back({{"name", row.entry.recipe.name}, {"differing", values_json(row.entry.differing)}, {"reason", row.refusal}});
      continue;
    }
    recipes.push_back({{"name", row.entry.recipe.name},
                       {"hash", qb::recipe_hash(row.entry.recipe)},
                       {"report_hash", row.plan->recipe_hash},
                       {"differing", values_json(row.entry.differing)},
                       {"product_index", row.entry.product_index},
                       {"state", row.state == SweepRow::State::fresh ? "new" : qb::to_text(row.state)},
                       {"run", row.run.empty() ? nlohmann::json(nullptr) : nlohmann::json(row.run)},
                       {"seconds", {{"load", row.cost.load_seconds}, {"quantize", row.cost.quantize_seconds}, {"evaluate", row.cost.evaluate_seconds}, {"total", row.cost.seconds()}, {"guess", row.cost.guess}, {"basis", row.cost.basis}}},
                       {"memory_bytes", row.cost.memory_bytes},
                       {"device_bytes", row.cost.device_bytes},
                       {"disk_bytes", row.cost.disk_bytes}});
  }
  for (const qb::SweepOmission& omission : night.sweep().omitted)
    omitted.push_back({{"name", omission.name}, {"differing", values_json(omission.differing)}, {"reason", omission.reason}, {"filtered", omission.filtered}});
  return {{"name", night.sweep().name}, {"recipes", recipes}, {"omitted", omitted}, {"refused", refused}, {"notes", night.sweep().notes}};
}

// The last part of a key tells it, unless another ends likewise.
std::string heading(const std::string& key, const std::vector<std::string>& keys) {
  const auto leaf = [](const std::string& text) { return text.substr(text.find_last_of('.') == std::string::npos ? 0 : text.find_last_of('.') + 1); };
  return std::count_if(keys.begin(), keys.end(), [&](const std::string& other) { return leaf(other) == leaf(key); }) > 1 ? key : leaf(key);
}

void print_plan(const Night& night, bool gpu) {
  std::vector<std::string> keys;
  for (const SweepRow& row : night.rows())
    for (const qb::SweepValue& value : row.entry.differing)
      if (std::find(keys.begin(), keys.end(), value.key) == keys.end()) keys.push_back(value.key);
  std::vector<std::string> header = {"recipe"};
  for (const std::string& key : keys) header.push_back(heading(key, keys));
  header.insert(header.end(), {"time", gpu ? "GPU memory" : "memory", "disk", ""});
  std::vector<std::vector<std::string>> rows;
  double seconds = 0, disk = 0;
  size_t waiting = 0, done = 0, refused = 0;
  bool guesses = false;
  for (const SweepRow& row : night.rows()) {
    refused += row.plan ? 0 : 1;
    done += row.state == SweepRow::State::done ? 1 : 0;
    std::vector<std::string> cells = {row.entry.recipe.name};
    for (const std::string& key : keys) {
      const auto value = std::find_if(row.entry.differing.begin(), row.entry.differing.end(), [&](const qb::SweepValue& v) { return v.key == key; });
      cells.push_back(value == row.entry.differing.end() ? "–" : qb::shown_value(*value));
    }
    if (!row.plan) {
      cells.insert(cells.end(), {"–", "–", "–", "refused"});
    } else {
      if (row.waits()) {
        ++waiting;
        seconds += row.cost.seconds();
        disk += row.cost.disk_bytes;
        guesses = guesses || row.cost.guess;
      }
      cells.insert(cells.end(), {row.state == SweepRow::State::done ? "–" : seconds_text(row.cost.seconds()) + (row.cost.guess ? " ?" : ""), bytes_text(gpu ? row.cost.device_bytes : row.cost.memory_bytes), bytes_text(row.cost.disk_bytes), qb::to_text(row.state)});
    }
    rows.push_back(std::move(cells));
  }
  std::cout << bold(night.sweep().name) << '\n';
  print_table(header, rows);
  std::cout << fmt::format("{} recipe{}, {} done, {} to carry out: about {}, {} of disk\n", night.rows().size(), night.rows().size() == 1 ? "" : "s", done, waiting, seconds_text(seconds), bytes_text(disk));
  if (guesses) std::cout << "? a guess: no run of the kind was measured on this host yet\n";
  for (const qb::SweepReason& reason : qb::refusals(night.rows())) std::cout << fmt::format("refused: {}: {}\n", qb::names_text(reason), reason.why);
  for (const qb::SweepReason& reason : qb::omissions(night.sweep(), false)) std::cout << fmt::format("left out: {}: {}\n", qb::names_text(reason), reason.why);
  const auto filtered = std::count_if(night.sweep().omitted.begin(), night.sweep().omitted.end(), [](const qb::SweepOmission& omission) { return omission.filtered; });
  if (filtered > 0) std::cout << fmt::format("left out by the file's filters: {} combination{}\n", filtered, filtered == 1 ? "" : "s");
}

// Makes the runs and hands them to Slurm.
int submit(const Arguments& arguments, const Options& options, Night& night, qb::Workspace& workspace) {
  const qb::SlurmOptions slurm = qb::parse_slurm_options(arguments.slurm);
  std::vector<std::string> runs;
  for (const Turn& turn : night.all()) runs.push_back(turn.resume.empty() ? workspace.create_run(turn.recipe, turn.sweep) : turn.resume);
  if (runs.empty()) {
    if (options.json) std::cout << nlohmann::json{{"job", nullptr}, {"runs", runs}}.dump() << '\n';
    return ok;
  }
  std::vector<std::string> more;
  if (arguments.statistics_cache) more = {"--statistics-cache", fmt::format("{}", *arguments.statistics_cache)};
  if (options.threads > 0) more.insert(more.end(), {"--threads", std::to_string(options.threads)});
  const std::string device = slurm.gpu() && !arguments.device_given ? "cuda:0" : arguments.device;
  qb::SlurmJob job;
  try {
    job = qb::submit_to_slurm(workspace.folder(), night.sweep().name, runs, device, slurm, more, qb::qbench_program());
  } catch (const qb::Error&) {
    for (const std::string& run : runs)
      if (workspace.load(run).started.empty()) workspace.remove(run);  // made for the job that is not
    throw;
  }
  if (options.json)
    std::cout << nlohmann::json{{"job", job.job}, {"runs", job.runs}, {"folder", job.folder.string()}}.dump() << '\n';
  else
    std::cout << fmt::format("job {} of Slurm: {} run{}; script and what its tasks say in {}\nqbench sweep status --workspace {} shows how it stands\n", job.job, runs.size(), runs.size() == 1 ? "" : "s",
                             job.folder.string(), arguments.workspace);
  return ok;
}

// Of a run's last progress.
std::string progress_text(const fs::path& folder) {
  qb::Progress last;
  for (const qb::RunEvent& event : qb::RunEventReader(folder, qb::RunEventReader::From::this_session).take())
    if (event.kind == qb::RunEvent::Kind::progress) last = event.progress;
  if (last.phase.empty()) return {};
  return fmt::format("{:.0f} %{}", last.fraction * 100, last.block >= 0 && last.phase == "quantize" ? fmt::format(", block {}/{}", last.block + 1, last.blocks) : "");
}

struct TaskRow {
  std::string task, run, name, status, slurm, node, progress;
};

std::vector<TaskRow> task_rows(const qb::Workspace& workspace) {
  const auto jobs = qb::slurm_jobs(workspace.folder());
  std::map<std::string, qb::SlurmTask> tasks;
  if (!jobs.empty()) try {
      tasks = qb::slurm_tasks();
    } catch (const qb::ResourceError& e) {
      std::cerr << "qbench: " << e.what() << "; what follows is what the runs' folders say\n";
    }
  std::map<std::string, qb::RunReport> heads;
  for (qb::RunReport& head : workspace.list()) heads.emplace(head.id, std::move(head));
  std::vector<TaskRow> rows;
  for (const qb::SlurmJob& job : jobs)
    for (size_t i = 0; i < job.runs.size(); ++i) {
      const auto head = heads.find(job.runs[i]);
      if (head == heads.end()) continue;  // removed since
      TaskRow row{job.task(i), job.runs[i], head->second.name, qb::to_text(head->second.status), {}, {}, {}};
      if (const auto found = tasks.find(row.task); found != tasks.end()) {
        row.slurm = found->second.state;
        row.node = found->second.node;
        if (!found->second.reason.empty() && found->second.state == "PENDING") row.slurm += " (" + found->second.reason + ")";
      }
      if (head->second.status == qb::RunStatus::running) row.progress = progress_text(workspace.run_folder(row.run));
      if (!head->second.error.empty()) row.progress = head->second.error;
      rows.push_back(std::move(row));
    }
  return rows;
}

int status(const Arguments& arguments, const Options& options) {
  const auto workspace = qb::Workspace::open(arguments.workspace, qb::Workspace::Absent::refuse);
  const auto rows = task_rows(*workspace);
  if (options.json) {
    nlohmann::json list = nlohmann::json::array();
    for (const TaskRow& row : rows) list.push_back({{"task", row.task}, {"run", row.run}, {"name", row.name}, {"status", row.status}, {"slurm", row.slurm}, {"node", row.node}, {"progress", row.progress}});
    std::cout << list.dump() << '\n';
    return ok;
  }
  if (rows.empty()) {
    std::cout << "nothing of this workspace was submitted to Slurm\n";
    return ok;
  }
  std::vector<std::vector<std::string>> cells;
  for (const TaskRow& row : rows) cells.push_back({row.name, row.task, row.status, row.slurm.empty() ? "–" : row.slurm, row.node.empty() ? "–" : row.node, row.progress});
  print_table({"run", "task", "status", "Slurm", "node", ""}, cells);
  return ok;
}

// All tasks that have not ended, or those of the runs that are named.
int cancel(const Arguments& arguments) {
  const auto workspace = qb::Workspace::open(arguments.workspace, qb::Workspace::Absent::refuse);
  std::set<std::string> wanted;
  for (const std::string& name : arguments.names) wanted.insert(find_run(*workspace, name));
  std::vector<std::string> tasks;
  for (const TaskRow& row : task_rows(*workspace)) {
    if ((!wanted.empty() && !wanted.contains(row.run)) || row.slurm.empty()) continue;
    tasks.push_back(row.task);
    const fs::path folder = workspace->run_folder(row.run);
    if (workspace->owner(row.run)) qb::wish(folder, qb::Wish::stop);  // the worker says so in its report
    else qb::drop_request(folder);
  }
  qb::cancel_slurm_tasks(tasks);
  std::cout << fmt::format("{} task{} cancelled\n", tasks.size(), tasks.size() == 1 ? "" : "s");
  return ok;
}

int sweep(const Arguments& arguments, const Options& options) {
  if (arguments.file.empty()) {
    std::cerr << "qbench sweep: give a recipe with lists, or one of status and cancel\n";
    return usage;
  }
  if (!arguments.slurm.empty()) qb::parse_slurm_options(arguments.slurm);  // a mistake is told before any work
  // Only looked at: a workspace that is not there is made when the first run is.
  std::shared_ptr<qb::Workspace> workspace;
  if (fs::is_directory(fs::path(arguments.workspace) / "runs")) workspace = qb::Workspace::open(arguments.workspace);
  Night night(arguments, workspace);
  night.estimate();
  for (const std::string& note : night.sweep().notes) std::cerr << "note: " << note << '\n';
  std::set<std::string> notes;
  for (const SweepRow& row : night.rows())
    for (const std::string& note : row.plan ? row.plan->notes : std::vector<std::string>{})
      if (notes.insert(note).second) std::cerr << fmt::format("note: {}: {}\n", row.entry.recipe.name, note);
  if (!options.json) print_plan(night, arguments.device != "cpu");
  if (arguments.dry_run && options.json) std::cout << as_json(night).dump() << '\n';
  const auto refused = std::find_if(night.rows().begin(), night.rows().end(), [](const SweepRow& row) { return !row.plan; });
  const bool any = std::any_of(night.rows().begin(), night.rows().end(), [](const SweepRow& row) { return row.plan.has_value(); });
  if (!any && refused != night.rows().end()) {
    std::cerr << fmt::format("qbench: no recipe can be carried out: {}: {}\n", refused->entry.recipe.name, refused->refusal);
    return exit_code(refused->refusal_kind);
  }
  if (arguments.dry_run) return ok;

  std::cout.flush();
  if (!workspace) night.set_workspace(workspace = qb::Workspace::open(arguments.workspace));
  if (!arguments.slurm.empty()) return submit(arguments, options, night, *workspace);
  nlohmann::json reports = nlohmann::json::array();
  const RunAll all{arguments.workspace, arguments.run_options(options.threads), qb::attached_worker(), arguments.quiet, false};
  int code = run_all(
      all, [&] { return night.next(); },
      [&](const qb::RunReport& report) {
        if (options.json)
          reports.push_back(nlohmann::json::parse(qb::to_json(report)));
        else
          print_summary(report);
      });
  night.look_at_runs();
  std::vector<std::string> finished;
  for (const SweepRow& row : night.rows()) {
    if (row.state == SweepRow::State::done) finished.push_back(row.run);
    if (row.state == SweepRow::State::at_work) std::cerr << fmt::format("qbench: {} is carried out by another process (run {})\n", row.entry.recipe.name, row.run);
    // What did not fit beside something else may fit another time: the sweep is not done.
    if (!row.plan && row.refusal_kind == qb::ErrorKind::resource && code == ok) code = resource;
  }
  if (code == cancelled) std::cerr << "qbench: the same command goes on with the sweep\n";
  if (options.json) {
    night.estimate();
    nlohmann::json result = as_json(night);
    result["reports"] = std::move(reports);
    std::cout << result.dump() << '\n';
  } else if (!finished.empty()) {
    std::cout << '\n';
    print_comparison(arguments.workspace, finished);
  }
  return code;
}

}  // namespace

void add_sweep(CLI::App& app, const Options& options, Action& action) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("sweep", "Carry out all combinations of a recipe with lists: type: [int3, int4], pipeline: [[rtn], [awq, gptq]]");
  command->add_option("file", arguments->file, "Recipe with lists where it has values (YAML); may grow while the sweep runs");
  command->add_option("--workspace,-w", arguments->workspace, "Folder that keeps the runs; recipes that are finished there are left out")->capture_default_str();
  CLI::Option* device = command->add_option("--device,-d", arguments->device, "cpu, cuda:0 …")->envname("QBENCH_DEVICE")->capture_default_str();
  command->add_option("--slurm", arguments->slurm, "Hand the runs to Slurm as an array job; options of sbatch: partition=gpu,gres=gpu:1,time=4:00:00,grace=120")->allow_extra_args(false);
  command->add_option("--set", arguments->settings, "Change a key of every recipe: scheme.weights.group_size=64 (may be repeated)")->allow_extra_args(false);
  command->add_option("--statistics-cache", arguments->statistics_cache,
                      "GB of the workspace for statistics that later recipes on the same model and text can use; 0: none [20, or a tenth of the free disk]")
      ->check(CLI::Range(0.0, 1e9));
  command->add_flag("--dry-run,-n", arguments->dry_run, "Only show the recipes, with estimated time, memory and disk");
  command->add_flag("--quiet,-q", arguments->quiet, "No progress");
  command->require_subcommand(0, 1);
  command->fallthrough();
  command->callback([arguments, &options, &action, command, device] {
    arguments->device_given = device->count() > 0;
    if (command->get_subcommands().empty()) action = [arguments, &options] { return sweep(*arguments, options); };
  });
  command->add_subcommand("status", "How the runs that were handed to Slurm stand")->callback([arguments, &options, &action] { action = [arguments, &options] { return status(*arguments, options); }; });
  CLI::App* cancelling = command->add_subcommand("cancel", "Cancel what was handed to Slurm");
  cancelling->add_option("runs", arguments->names, "Ids, or names that only one run has [all that have not ended]");
  cancelling->callback([arguments, &action] { action = [arguments] { return cancel(*arguments); }; });
}

}  // namespace cli
