// The runs of a workspace: list, show, remove, export-table.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <optional>

#include "cli.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/measure/report_json.h"
#include "core/recipe/recipe.h"
#include "core/store/run_table.h"
#include "core/store/workspace.h"

namespace cli {
namespace {

struct Arguments {
  std::string workspace = "qbench-workspace", columns, sort = "-date", baseline, format, output;
  std::vector<std::string> where, grep, runs;
  int limit = 0;
  bool recipe = false, yes = false, help_columns = false;
};

// Tells what is read where that takes a while: a workspace that this host has no index of.
std::shared_ptr<qb::Workspace> open(const Arguments& arguments) {
  std::optional<ProgressBar> bar;
  const auto workspace = qb::Workspace::open(arguments.workspace, qb::Workspace::Absent::refuse, [&](int done, int all) {
    if (all < 50) return;
    if (!bar) bar.emplace("reading " + arguments.workspace);
    qb::Progress progress;
    progress.phase = fmt::format("{} of {} runs", done, all);
    progress.fraction = double(done) / all;
    progress.elapsed_s = done;  // each is drawn
    bar->show(progress);
  });
  return workspace;
}

void add_table_options(CLI::App& command, Arguments& arguments) {
  command.add_option("--workspace,-w", arguments.workspace, "Folder that keeps the runs")->capture_default_str();
  command.add_option("--where", arguments.where, "Condition on a column: status=finished, ppl<30, model~smol, started>=2026-11-01; several must all hold")->allow_extra_args(false);
  command.add_option("--grep", arguments.grep, "Words that stand in name, id, model, scheme, pipeline, sweep, tags, notes or status")->allow_extra_args(false);
  command.add_option("--columns", arguments.columns, "Keys of the columns, with commas between them, or all (--help-columns lists them)");
  command.add_option("--sort", arguments.sort, "Keys to sort by, with commas between them; -KEY for the largest first")->capture_default_str();
  command.add_option("--baseline", arguments.baseline, "Run that Δ refers to (default: each run's float model)");
  command.add_option("--limit", arguments.limit, "At most so many runs (0: all)")->check(CLI::Range(0, 1 << 30));
  command.add_flag("--help-columns", arguments.help_columns, "List the columns: keys, titles, units, meanings");
}

// Runs that were asked for, in order; `heads` and `baseline` keep them.
struct Table {
  std::vector<qb::RunReport> heads;
  std::vector<const qb::RunReport*> runs;
  qb::RunColumns columns;
  const qb::RunReport* baseline = nullptr;
};

Table table_of(const qb::Workspace& workspace, const Arguments& arguments) {
  Table table;
  table.columns = arguments.columns.empty() ? qb::standard_columns() : qb::parse_run_columns(arguments.columns);
  const auto order = qb::parse_run_order(arguments.sort);
  qb::RunQuery query;
  for (const std::string& condition : arguments.where) query.add_condition(condition);
  for (const std::string& words : arguments.grep) query.add_words(words);
  table.heads = workspace.list();
  if (!arguments.baseline.empty()) {
    const std::string id = find_run(workspace, arguments.baseline);
    for (const qb::RunReport& head : table.heads)
      if (head.id == id) table.baseline = &head;
  }
  for (const qb::RunReport& head : table.heads)
    if (query.accepts(head, table.baseline)) table.runs.push_back(&head);
  qb::sort_runs(table.runs, order, table.baseline);
  if (arguments.limit > 0 && table.runs.size() > size_t(arguments.limit)) table.runs.resize(size_t(arguments.limit));
  return table;
}

int list_columns(const Options& options) {
  if (options.json) {
    nlohmann::json list = nlohmann::json::array();
    for (const qb::RunColumn& column : qb::run_columns())
      list.push_back({{"key", column.key}, {"title", column.title}, {"unit", column.unit}, {"help", column.help}, {"standard", column.standard}, {"kind", column.kind == qb::RunColumnKind::figure ? "figure" : column.kind == qb::RunColumnKind::time ? "time" : "text"}});
    std::cout << list.dump() << '\n';
    return ok;
  }
  for (const qb::RunColumn& column : qb::run_columns())
    std::cout << fmt::format("{}{:<14} {}: {}\n", column.standard ? "* " : "  ", column.key, qb::column_heading(column), column.help);
  std::cout << "* shown unless others are chosen\n";
  return ok;
}

int list(const Arguments& arguments, const Options& options) {
  if (arguments.help_columns) return list_columns(options);
  const auto workspace = open(arguments);
  const Table table = table_of(*workspace, arguments);
  if (options.json) {
    std::cout << qb::runs_as_json(table.runs, table.columns, table.baseline) << '\n';
    return ok;
  }
  std::vector<std::string> header;
  std::vector<bool> texts;
  for (const qb::RunColumn* column : table.columns) {
    header.push_back(qb::column_heading(*column));
    texts.push_back(column->kind != qb::RunColumnKind::figure);
  }
  std::vector<std::vector<std::string>> rows;
  for (const qb::RunReport* run : table.runs) {
    rows.emplace_back();
    for (const qb::RunColumn* column : table.columns) {
      std::string cell = qb::cell_text(*column, column->value(*run, table.baseline));
      std::replace(cell.begin(), cell.end(), '\n', ' ');
      rows.back().push_back(std::move(cell));
    }
  }
  print_table(header, rows, texts);
  std::cerr << fmt::format("{} of {} runs\n", table.runs.size(), table.heads.size());
  return ok;
}

int show(const Arguments& arguments, const Options& options) {
  const auto workspace = open(arguments);
  const std::string id = find_run(*workspace, arguments.runs.front());
  if (arguments.recipe) {
    std::cout << qb::to_yaml(workspace->recipe(id));
    return ok;
  }
  const qb::RunReport run = workspace->load(id);
  if (options.json) {
    nlohmann::json json = nlohmann::json::parse(qb::to_json(run));
    json["tags"] = run.tags;
    json["notes"] = run.notes;
    json["folder"] = workspace->run_folder(id).string();
    std::cout << json.dump() << '\n';
    return ok;
  }
  std::cout << bold(run.name) << '\n';
  for (const qb::RunColumn& column : qb::run_columns()) {
    const qb::RunValue value = column.value(run, nullptr);
    if (column.key != "name" && !std::holds_alternative<std::monostate>(value)) std::cout << fmt::format("  {:<20} {}\n", qb::column_heading(column), qb::cell_text(column, value));
  }
  std::cout << fmt::format("  {:<20} {}\n  {:<20} {}\n", "Blocks", run.blocks.size(), "Folder", workspace->run_folder(id).string());
  if (run.costs.empty()) return ok;
  std::vector<std::vector<std::string>> rows;
  const bool gpu = std::any_of(run.costs.begin(), run.costs.end(), [](const qb::StageCost& cost) { return cost.device_seconds > 0; });
  for (const qb::StageCost& cost : run.costs) {
    rows.push_back({cost.stage, seconds_text(cost.seconds), seconds_text(cost.cpu_seconds), bytes_text(static_cast<double>(cost.peak_rss_bytes))});
    if (gpu) rows.back().insert(rows.back().end(), {seconds_text(cost.device_seconds), bytes_text(static_cast<double>(cost.peak_device_bytes))});
  }
  std::vector<std::string> header = {"stage", "time", "processor", "peak memory"};
  if (gpu) header.insert(header.end(), {"GPU held", "peak GPU memory"});
  std::cout << '\n';
  print_table(header, rows);
  return ok;
}

int remove(const Arguments& arguments, const Options& options) {
  const auto workspace = open(arguments);
  std::vector<std::string> ids;  // all are found before any goes
  for (const std::string& wanted : arguments.runs)
    if (const std::string id = find_run(*workspace, wanted); std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  if (!arguments.where.empty() || !arguments.grep.empty())
    for (const qb::RunReport* run : table_of(*workspace, arguments).runs)
      if (std::find(ids.begin(), ids.end(), run->id) == ids.end()) ids.push_back(run->id);
  if (arguments.runs.empty() && arguments.where.empty() && arguments.grep.empty()) throw qb::InputError("which runs? Give ids or names, or --where and --grep");
  if (ids.empty()) std::cerr << "no run passes the filter\n";
  if (!arguments.yes && ids.size() > 1) {
    if (!::isatty(STDIN_FILENO)) throw qb::InputError(fmt::format("{} runs would be deleted for good; --yes says that they shall be", ids.size()));
    for (const std::string& id : ids) std::cerr << "  " << id << '\n';
    std::cerr << fmt::format("Delete these {} runs with their results? [y/N] ", ids.size()) << std::flush;
    std::string answer;
    if (!std::getline(std::cin, answer) || (answer != "y" && answer != "Y" && answer != "yes")) throw qb::Cancelled();
  }
  for (const std::string& id : ids) {
    workspace->remove(id);
    if (!options.json) std::cout << "removed " << id << '\n';
  }
  if (options.json) std::cout << nlohmann::json{{"removed", ids}}.dump() << '\n';
  return ok;
}

int export_table(const Arguments& arguments, const Options& options) {
  if (arguments.help_columns) return list_columns(options);
  std::string format = arguments.format;
  if (format.empty() && !arguments.output.empty()) {
    const std::string ending = std::filesystem::path(arguments.output).extension().string();
    format = ending == ".json" ? "json" : ending == ".md" ? "markdown" : ending == ".csv" ? "csv" : "";
    if (format.empty()) throw qb::InputError(fmt::format("{}: the name does not tell a format; expected .csv, .json or .md, or --format", arguments.output));
  }
  if (format.empty()) format = options.json ? "json" : "csv";
  const auto workspace = open(arguments);
  const Table table = table_of(*workspace, arguments);
  const std::string text = format == "json" ? qb::runs_as_json(table.runs, table.columns, table.baseline) + "\n"
                           : format == "csv" ? qb::runs_as_csv(table.runs, table.columns, table.baseline)
                                             : qb::runs_as_markdown(table.runs, table.columns, table.baseline);
  if (arguments.output.empty())
    std::cout << text;
  else
    qb::write_atomically(arguments.output, text);
  return ok;
}

}  // namespace

void add_runs(CLI::App& app, const Options& options, Action& action) {
  const auto add = [&](const char* name, const char* help, int (*run)(const Arguments&, const Options&)) {
    auto arguments = std::make_shared<Arguments>();
    CLI::App* command = app.add_subcommand(name, help);
    command->callback([arguments, &options, &action, run] { action = [arguments, &options, run] { return run(*arguments, options); }; });
    return std::pair(command, arguments);
  };
  {
    const auto [command, arguments] = add("list", "List the runs of a workspace", list);
    add_table_options(*command, *arguments);
  }
  {
    const auto [command, arguments] = add("show", "Tell all about a run", show);
    command->add_option("run", arguments->runs, "Id or name")->required()->expected(1);
    command->add_option("--workspace,-w", arguments->workspace, "Folder that keeps the runs")->capture_default_str();
    command->add_flag("--recipe", arguments->recipe, "Print its recipe instead, as YAML");
  }
  {
    const auto [command, arguments] = add("remove", "Delete runs with their results", remove);
    command->add_option("runs", arguments->runs, "Ids or names");
    command->add_option("--workspace,-w", arguments->workspace, "Folder that keeps the runs")->capture_default_str();
    command->add_option("--where", arguments->where, "Those for which this holds, too, as in qbench list")->allow_extra_args(false);
    command->add_option("--grep", arguments->grep, "Those with these words, too")->allow_extra_args(false);
    command->add_flag("--yes,-y", arguments->yes, "Do not ask");
  }
  {
    const auto [command, arguments] = add("export-table", "Write the table of runs as CSV, JSON or Markdown", export_table);
    add_table_options(*command, *arguments);
    command->add_option("--format,-f", arguments->format, "csv, json or markdown (default: as the file's name ends; csv)")->check(CLI::IsMember({"csv", "json", "markdown"}));
    command->add_option("--output,-o", arguments->output, "File (default: standard output)");
  }
}

}  // namespace cli
