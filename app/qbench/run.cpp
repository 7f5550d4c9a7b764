#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <optional>

#include "cli.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/measure/report_json.h"
#include "core/recipe/settings.h"
#include "core/run/run.h"
#include "run_all.h"
#include "work.h"

namespace cli {
namespace {

struct Arguments {
  std::vector<std::string> recipes, settings;
  std::string workspace = "qbench-workspace", device = "cpu", resume;
  std::optional<double> statistics_cache;  // GB

  qb::RunOptions run_options(int threads = 0) const {
    qb::RunOptions options{device, {}};
    options.threads = threads;
    if (statistics_cache) options.statistics_cache_bytes = std::llround(*statistics_cache * 1e9);
    return options;
  }
  bool check = false, quiet = false;
};

qb::Recipe load(const std::string& path) try {
  return qb::load_recipe(path);
} catch (const qb::RecipeError& e) {
  if (!e.detail().ends_with("found a list")) throw;
  throw qb::RecipeError(e.file(), e.line(), e.column(), e.key(), e.detail() + "; a recipe with lists stands for several: qbench sweep");
}

// In a process of its own: one that has computed must not be forked, and workers are.
int check(const std::vector<qb::Recipe>& recipes, const Arguments& arguments, const Options& options) {
  prepare_compute(options);
  std::vector<std::string> notes;
  for (size_t i = 0; i < recipes.size(); ++i) try {
      for (const std::string& note : qb::preflight(recipes[i], arguments.run_options(), arguments.workspace)) notes.push_back(fmt::format("{}: {}", recipes[i].name, note));
    } catch (const qb::RecipeError& e) {
      if (!e.file().empty()) throw;
      const qb::Position at = qb::position_of(qb::read_text(arguments.recipes[i], 4 << 20), e.key());
      throw qb::RecipeError(arguments.recipes[i], at.line, at.column, e.key(), e.detail());
    }
  for (const std::string& note : notes) std::cerr << "note: " << note << '\n';
  return ok;
}

int run(const Arguments& arguments, const Options& options) {
  if (arguments.recipes.empty() == arguments.resume.empty()) {
    std::cerr << "qbench run: give recipes, or --resume with a run's id\n";
    return usage;
  }
  if (!arguments.resume.empty() && (!arguments.settings.empty() || arguments.check)) {
    std::cerr << "qbench run: a run is resumed as it was started; --set and --check go with recipes\n";
    return usage;
  }
  // All recipes are checked before the first one costs an hour.
  std::vector<qb::Recipe> recipes;
  for (const auto& path : arguments.recipes) recipes.push_back(qb::with_settings(load(path), arguments.settings, std::filesystem::current_path()));
  const int checked = in_child([&] { return check(recipes, arguments, options); });
  if (checked != ok) return checked;
  if (arguments.check) {
    if (!options.json) std::cout << fmt::format("{} recipe{} fit{}\n", recipes.size(), recipes.size() == 1 ? "" : "s", recipes.size() == 1 ? "s" : "");
    else std::cout << nlohmann::json{{"checked", recipes.size()}}.dump() << '\n';
    return ok;
  }
  nlohmann::json results = nlohmann::json::array();
  const size_t count = std::max<size_t>(1, recipes.size());
  size_t started = 0;
  const RunAll all{arguments.workspace, arguments.run_options(options.threads), fork_worker, arguments.quiet, count == 1};
  const int code = run_all(
      all,
      [&]() -> std::optional<Turn> {
        if (started == count) return std::nullopt;
        const size_t i = started++;
        if (!arguments.resume.empty()) return Turn{{}, arguments.resume, ""};
        return Turn{recipes[i], "", ""};
      },
      [&](const qb::RunReport& report) {
        if (options.json)
          results.push_back(nlohmann::json::parse(qb::to_json(report)));
        else
          print_summary(report);
      });
  if (options.json && (code == ok || !results.empty())) std::cout << results.dump() << '\n';
  return code;
}

}  // namespace

void print_summary(const qb::RunReport& report) {
  std::cout << bold(report.name) << fmt::format("  {}, {}  (run {})\n", report.scheme, report.pipeline, report.id);
  std::cout << fmt::format("  {:.3f} bits a weight, {}{} of linears\n", report.bits_per_weight, report.float_bytes > 0 ? bytes_text(static_cast<double>(report.float_bytes)) + " → " : "",
                           bytes_text(static_cast<double>(report.quantized_bytes)));
  for (const qb::LinearReport& matrix : report.vocabulary)
    std::cout << fmt::format("  {} {}: {:.3f} bits a weight{}\n", matrix.name, matrix.scheme, matrix.bits_per_weight,
                             std::isfinite(matrix.output_relative_error) ? fmt::format(", relative error of its output {:.4g}", matrix.output_relative_error) : "");
  if (report.model_bytes > 0)
    std::cout << fmt::format("  whole model {}{}\n", report.model_float_bytes > 0 ? bytes_text(static_cast<double>(report.model_float_bytes)) + " → " : "", bytes_text(static_cast<double>(report.model_bytes)));
  for (const auto& p : report.evaluations)
    std::cout << fmt::format("  {}{}  ({})\n", qb::figure_text(p), p.float_model ? " " + qb::subject_text(p) : std::string(), qb::conditions_text(p));
  std::cout << fmt::format("  {} {}, {} evaluating, peak memory {}{}\n", seconds_text(report.quantize_seconds), report.pipeline == "imported" ? "reading and measuring" : "quantizing", seconds_text(report.evaluate_seconds),
                           bytes_text(static_cast<double>(report.peak_rss_bytes)),
                           report.peak_device_bytes > 0 ? fmt::format(", of the GPU {}", bytes_text(static_cast<double>(report.peak_device_bytes))) : "");
  if (report.statistics_cached_blocks > 0)
    std::cout << fmt::format("  calibration statistics of {} of {} blocks from the cache\n", report.statistics_cached_blocks, report.blocks.size());
}

void add_run(CLI::App& app, const Options& options, Action& action) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("run", "Carry out recipes: quantize, measure, evaluate");
  command->add_option("recipes", arguments->recipes, "Recipe files (YAML)");
  command->add_option("--workspace,-w", arguments->workspace, "Folder that keeps the runs")->capture_default_str();
  command->add_option("--device,-d", arguments->device, "cpu, cuda:0 …")->envname("QBENCH_DEVICE")->capture_default_str();
  command->add_option("--resume", arguments->resume, "Go on with a cancelled run (its id)");
  command->add_option("--set", arguments->settings, "Change a key of every recipe: scheme.weights.group_size=64 (may be repeated)")->allow_extra_args(false);
  command->add_option("--statistics-cache", arguments->statistics_cache,
                      "GB of the workspace for statistics that later recipes on the same model and text can use; 0: none [20, or a tenth of the free disk]")
      ->check(CLI::Range(0.0, 1e9));
  command->add_flag("--check", arguments->check, "Only check recipes against model and data");
  command->add_flag("--quiet,-q", arguments->quiet, "No progress");
  command->callback([arguments, &options, &action] { action = [arguments, &options] { return run(*arguments, options); }; });
}

}  // namespace cli
