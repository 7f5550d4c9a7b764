#include "core/run/run_export.h"

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/engine/engine.h"
#include "core/engine/run_state.h"
#include "core/measure/report_json.h"
#include "core/recipe/target.h"
#include "core/run/run_inputs.h"

namespace qb {
namespace {

void require_finished(const RunReport& report, const std::filesystem::path& run) {
  if (report.status != RunStatus::finished) throw InputError(fmt::format("{}: the run is {}, expected a finished one", run.string(), to_text(report.status)));
}

// An imported run is what its checkpoint is: read from there, with the names and the tokenizer beside it.
QuantizedModel imported_model(const Recipe& recipe, const std::filesystem::path& run) {
  const RunState state = load_state(run);
  const auto made = state.fingerprint.find("checkpoint");
  if (const std::string hash = model_hash(recipe.checkpoint); made != state.fingerprint.end() && made->second != hash)
    throw InputError(fmt::format("{}: the run was made of another checkpoint at {} (hash {}, found {})", run.string(), recipe.checkpoint.string(), made->second, hash));
  return open_checkpoint(recipe.checkpoint);
}

}  // namespace

FinishedRun open_run(const std::filesystem::path& run, const Control& control) {
  const auto recipe = run / "recipe.yaml", report = run / "report.json";
  for (const auto& file : {recipe, report})
    if (!std::filesystem::exists(file)) throw InputError(fmt::format("{}: no {} in it; expected the folder of a run", run.string(), file.filename().string()));
  FinishedRun opened{load_recipe(recipe), run_report_from_json(read_text(report), report.string()), {}};
  if (!opened.recipe.checkpoint.empty()) {
    opened.model = imported_model(opened.recipe, run);
    require_finished(opened.report, run);
    return opened;
  }
  const auto model = open_model(opened.recipe);
  if (const std::string hash = model_hash(opened.recipe.model); !opened.report.model_hash.empty() && hash != opened.report.model_hash)
    throw InputError(fmt::format("{}: the run was made of another model at {} (hash {}, found {})", run.string(), opened.recipe.model.string(), opened.report.model_hash, hash));
  // Plans of stages that change the model are in the folder: calibration text is not needed again.
  opened.recipe = for_target(std::move(opened.recipe), model->info.dtype);
  EngineJob made;
  made.model = model;
  made.pipeline = opened.recipe.pipeline;
  made.seed = opened.recipe.seed;
  made.folder = run;
  const auto changed = changed_model(made, control);
  opened.model = quantized_model(changed, run, &opened.recipe.scheme);
  require_finished(opened.report, run);
  return opened;
}

ModelCard card_of(const FinishedRun& run) {
  ModelCard card;
  card.title = fmt::format("{}: {}, {}", run.report.model_name, run.report.scheme, run.report.pipeline);
  card.recipe = to_yaml(run.recipe);
  for (const EvaluationResult& p : run.report.evaluations)
    card.figures.push_back(fmt::format("{}: {} on {}", p.float_model ? subject_text(p) : "quantized", figure_text(p), conditions_text(p)));
  card.figures.push_back(fmt::format("{:.3f} bits a weight in the quantized linears, scales and zero points included", run.report.bits_per_weight));
  card.figures.push_back(fmt::format("quantized in {:.0f} s with {} calibration tokens on {} ({} threads, torch {})", run.report.quantize_seconds, run.report.calibration_tokens,
                                     run.report.environment.device == "cpu" ? run.report.environment.cpu : run.report.environment.device, run.report.environment.threads,
                                     run.report.environment.torch_version));
  return card;
}

}  // namespace qb
