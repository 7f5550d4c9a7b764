#include <fmt/format.h>

#include <cmath>
#include <iostream>
#include <optional>

#include "cli.h"
#include "core/base/error.h"
#include "core/format/model_place.h"
#include "core/measure/report_json.h"
#include "core/recipe/settings.h"
#include "core/run/run.h"

namespace cli {
namespace {

struct Arguments {
  std::string checkpoint, model, text, name, like, workspace = "qbench-workspace", device = "cpu";
  std::vector<std::string> evaluate, settings;
  std::optional<int64_t> samples, sample_length, seq_len, windows;
  std::optional<std::string> dtype;
  bool quiet = false;
};

qb::Recipe recipe_of(const Arguments& a, const qb::Workspace& workspace) {
  namespace fs = std::filesystem;
  qb::Recipe recipe;
  if (!a.like.empty()) {
    const qb::Recipe other = workspace.recipe(find_run(workspace, a.like));
    recipe.model = other.model;
    recipe.dtype = other.dtype;
    recipe.calibration = other.calibration;
    recipe.evaluation = other.evaluation;
    recipe.propagate_quantized = other.propagate_quantized;
    recipe.evaluate_float = other.evaluate_float;
    recipe.seed = other.seed;
  }
  recipe.checkpoint = fs::absolute(a.checkpoint).lexically_normal();
  if (recipe.checkpoint.filename().empty()) recipe.checkpoint = recipe.checkpoint.parent_path();
  const fs::path folder = qb::folder_of_part(recipe.checkpoint), &named = folder.empty() ? recipe.checkpoint : folder;
  recipe.name = !a.name.empty() ? a.name : named.extension() == ".gguf" ? named.stem().string() : named.filename().string();
  if (!a.model.empty()) recipe.model = fs::absolute(a.model).lexically_normal();
  if (recipe.model.empty()) recipe.model = recipe.checkpoint;
  if (a.dtype) recipe.dtype = *a.dtype;
  if (!a.text.empty()) recipe.calibration = qb::CalibrationSpec{{"", fs::absolute(a.text), "text"}, {}};
  if (recipe.calibration) {
    if (a.samples) recipe.calibration->sampling.samples = *a.samples;
    if (a.sample_length) recipe.calibration->sampling.seq_len = *a.sample_length;
  }
  if (!a.evaluate.empty()) recipe.evaluation.clear();
  for (const std::string& text : a.evaluate) recipe.evaluation.push_back({{"", fs::absolute(text), "text"}, 2048, 0, "float32"});
  for (qb::EvaluationSpec& spec : recipe.evaluation) {
    if (a.seq_len) spec.seq_len = *a.seq_len;
    if (a.windows) spec.windows = *a.windows;
  }
  return qb::with_settings(recipe, a.settings, fs::current_path());
}

int import(const Arguments& a, const Options& options) {
  const auto workspace = qb::Workspace::open(a.workspace);
  const qb::Recipe recipe = recipe_of(a, *workspace);
  const qb::RunOptions run_options{a.device, 0};
  qb::preflight(recipe, run_options, a.workspace);
  const std::string id = workspace->create_run(recipe);
  ProgressBar bar(recipe.name);
  qb::Control control{interrupt_token(), nullptr, {}};
  if (!a.quiet) control.on_progress = [&](const qb::Progress& p) { bar.show(p); };
  try {
    const qb::RunReport report = qb::carry_out(*workspace, id, run_options, control);
    bar.clear();
    if (options.json)
      std::cout << qb::to_json(report) << '\n';
    else
      print_summary(report);
    return ok;
  } catch (const qb::Cancelled&) {
    bar.clear();
    std::cerr << fmt::format("qbench: the import was cancelled; go on with: qbench run --workspace {} --resume {}\n", a.workspace, id);
    return cancelled;
  } catch (...) {
    bar.clear();
    workspace->remove(id);  // what could not be read is no run
    throw;
  }
}

}  // namespace

void add_import(CLI::App& app, const Options& options, Action& action) {
  auto a = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("import", "Measure a quantized checkpoint (compressed-tensors, GPTQ, AWQ, MLX, GGUF) as if it were a run of the workspace");
  command->add_option("checkpoint", a->checkpoint, "Folder of the checkpoint, or its .gguf file")->required();
  command->add_option("--model,-m", a->model, "Its float original, for errors of every linear and block (without it: only the evaluation)");
  command->add_option("--like", a->like, "Run (its id or name) whose model, texts and conditions are taken, so that both compare");
  command->add_option("--text", a->text, "Calibration text, for errors of outputs");
  command->add_option("--samples", a->samples, "Samples of the calibration text [128]")->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
  command->add_option("--sample-len", a->sample_length, "Tokens of each sample [512]")->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
  command->add_option("--evaluate", a->evaluate, "Text to measure perplexity on (may be repeated)")->allow_extra_args(false);
  command->add_option("--seq-len", a->seq_len, "Tokens of each window [2048]")->check(CLI::Range(int64_t{2}, int64_t{1} << 40));
  command->add_option("--windows", a->windows, "Windows measured; 0: all [0]")->check(CLI::Range(int64_t{0}, int64_t{1} << 40));
  command->add_option("--dtype", a->dtype, "Of the calibration's forward passes [bfloat16]")->check(CLI::IsMember({"float32", "bfloat16"}));
  command->add_option("--name", a->name, "Of the run (default: the folder's or file's)");
  command->add_option("--set", a->settings, "Change a key of the recipe: evaluation[0].dtype=bfloat16 (may be repeated)")->allow_extra_args(false);
  command->add_option("--workspace,-w", a->workspace, "Folder that keeps the runs")->capture_default_str();
  command->add_option("--device,-d", a->device, "cpu, cuda:0 …")->envname("QBENCH_DEVICE")->capture_default_str();
  command->add_flag("--quiet,-q", a->quiet, "No progress");
  command->callback([a, &options, &action] { action = [a, &options] { return import(*a, options); }; });
}

}  // namespace cli
