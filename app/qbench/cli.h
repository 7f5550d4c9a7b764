#pragma once
#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/base/control.h"

namespace qb {
class Error;
enum class ErrorKind;
class Workspace;
struct RunReport;
struct KnobInfo;
}  // namespace qb

// What the subcommands share. Results go to stdout (one JSON document with --json), progress and errors to stderr.
namespace cli {

enum ExitCode { ok = 0, failure = 1, usage = 2, recipe = 3, input = 4, resource = 5, cancelled = 130 };
ExitCode exit_code(qb::ErrorKind kind);
ExitCode exit_code(const qb::Error& error);

struct Options {
  bool json = false;
  int threads = 0;
};

// Each adds its subcommand; the returned action runs when it was chosen and gives the exit code.
using Action = std::function<int()>;
void add_inspect(CLI::App& app, const Options& options, Action& action);
void add_run(CLI::App& app, const Options& options, Action& action);
void add_eval(CLI::App& app, const Options& options, Action& action);
void add_export(CLI::App& app, const Options& options, Action& action);
void add_imatrix(CLI::App& app, const Options& options, Action& action);
void add_import(CLI::App& app, const Options& options, Action& action);
void add_formats(CLI::App& app, const Options& options, Action& action);
void add_families(CLI::App& app, const Options& options, Action& action);
void add_methods(CLI::App& app, const Options& options, Action& action);
void add_evaluators(CLI::App& app, const Options& options, Action& action);
void add_scheme(CLI::App& app, const Options& options, Action& action);
void add_compare(CLI::App& app, const Options& options, Action& action);
void add_runs(CLI::App& app, const Options& options, Action& action);  // list, show, remove, export-table
void add_recipe(CLI::App& app, const Options& options, Action& action);
void add_speed(CLI::App& app, const Options& options, Action& action);
void add_texts(CLI::App& app, const Options& options, Action& action);
void add_best(CLI::App& app, const Options& options, Action& action);
void add_sweep(CLI::App& app, const Options& options, Action& action);
void add_help(CLI::App& app, const Options& options, Action& action);
void add_work(CLI::App& app, const Options& options, Action& action);
void add_queue(CLI::App& app, const Options& options, Action& action);

// Loads what computes; every command but those that fork does so before its action.
void prepare_compute(const Options& options);
// What main does around an action: errors become messages on stderr and exit codes.
int guarded(const Action& action);

// Takes Ctrl-C and SIGTERM over from the system. Call before the first thread is made.
void watch_interrupts();
// From now on the first Ctrl-C asks the job to stop; a second one, or one before this call, ends the process with 130.
std::stop_token interrupt_token();

// "1.25 GB", "3 min 20 s", "135 M"
std::string bytes_text(double bytes);
std::string seconds_text(double seconds);
std::string count_text(double count);
bool colours();  // stdout is a terminal and NO_COLOR is not set (https://no-color.org)
std::string bold(const std::string& text);

// Columns aligned on what they hold; the first column left, others right, but for those of `texts`. Wide rows lose the end of
// their first column.
void print_table(const std::vector<std::string>& header, const std::vector<std::vector<std::string>>& rows, const std::vector<bool>& texts = {});

// A bar on a terminal, a line per ten percent elsewhere; nothing when json is wanted and stderr is no terminal.
class ProgressBar {
 public:
  explicit ProgressBar(std::string title);
  ~ProgressBar();
  void show(const qb::Progress& progress);
  void clear();

 private:
  std::string title_;
  bool terminal_;
  bool drawn_ = false;
  int decile_ = -1;
  double last_ = -1;
};

void print_summary(const qb::RunReport& report);
// The table of `qbench compare`, of these runs.
void print_comparison(const std::string& workspace, const std::vector<std::string>& runs);
// The id of a run, from its id, or its name when only one has it. Throws InputError.
std::string find_run(const qb::Workspace& workspace, const std::string& wanted);

// --bos, as a recipe's key; empty text: the family's default.
void add_bos_option(CLI::App& command, std::string& bos);
void print_notes(const std::vector<std::string>& notes);  // to stderr

nlohmann::json knobs_json(const std::vector<qb::KnobInfo>& knobs);
void print_knobs(const std::vector<qb::KnobInfo>& knobs);  // under the name of what they are of

nlohmann::json number(double value);  // null for NaN, "inf" texts for infinities

}  // namespace cli
