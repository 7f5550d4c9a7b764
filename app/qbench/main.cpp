// qbench: the engine as a command line.
#include <iostream>
#include <limits>

#include "cli.h"
#include "report.h"
#include "sensitivity.h"
#include "core/base/error.h"

namespace {

// "-w ''" is a variable that was not set, not the current folder.
void refuse_empty_values(CLI::App& app) {
  static const CLI::Validator not_empty([](const std::string& value) { return value.empty() ? std::string("the value is empty") : std::string(); }, "", "not empty");
  for (CLI::Option* option : app.get_options())
    if (option->get_items_expected_max() > 0) option->check(not_empty);
  for (CLI::App* command : app.get_subcommands([](CLI::App*) { return true; })) refuse_empty_values(*command);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Post-training quantization of large language models: quantize, measure, compare.\n"
               "Exit codes: 0 done, 2 wrong usage, 3 wrong recipe, 4 wrong input, 5 disk, memory or device, 130 cancelled, 1 anything else.",
               "qbench"};
  app.set_version_flag("--version", "qbench " QBENCH_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  cli::Options options;
  app.add_flag("--json", options.json, "Print results as one JSON document");
  app.add_option("--threads", options.threads, "CPU threads (default and most: the cores that this process may use)")->check(CLI::Range(0, std::numeric_limits<int>::max()));
  cli::Action action;
  cli::add_inspect(app, options, action);
  cli::add_run(app, options, action);
  cli::add_sweep(app, options, action);
  cli::add_eval(app, options, action);
  cli::add_speed(app, options, action);
  cli::add_texts(app, options, action);
  cli::add_best(app, options, action);
  cli::add_compare(app, options, action);
  cli::add_report(app, options, action);
  cli::add_runs(app, options, action);
  cli::add_export(app, options, action);
  cli::add_imatrix(app, options, action);
  cli::add_sensitivity(app, options, action);
  cli::add_allocate(app, options, action);
  cli::add_import(app, options, action);
  cli::add_formats(app, options, action);
  cli::add_families(app, options, action);
  cli::add_methods(app, options, action);
  cli::add_evaluators(app, options, action);
  cli::add_scheme(app, options, action);
  cli::add_recipe(app, options, action);
  cli::add_work(app, options, action);
  cli::add_queue(app, options, action);
  cli::add_help(app, options, action);
  refuse_empty_values(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    const int code = app.exit(e);
    return code == 0 ? cli::ok : cli::usage;
  }
  return cli::guarded([&] {
    const bool work = app.got_subcommand("work");  // has signals of its own
    if (!work) cli::watch_interrupts();
    if (!work && !app.got_subcommand("run") && !app.got_subcommand("queue")) cli::prepare_compute(options);
    const int code = action();
    if (!std::cout.flush()) throw qb::ResourceError("the results could not be written to standard output");
    return code;
  });
}
