#include "core/run/run_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "core/method/contracts.h"
#include "core/method/guided.h"
#include "core/method/reconstruction/e2e_tuning.h"
#include "core/recipe/importance.h"
#include "core/recipe/preset.h"
#include "core/recipe/target.h"
#include "core/run/run_inputs.h"
#include "core/run/run_target.h"

namespace qb {
namespace {

namespace fs = std::filesystem;

constexpr double kMeasuredTokens = 2048;   // EngineJob::measured_tokens
constexpr double kBlockTokens = 64;        // reading and widening a block's weights costs about as much as so many tokens passing through it
constexpr double kProgramBytes = 130e6;    // of the program itself, with libtorch
constexpr double kReportBytes = 8e3;       // of a linear's histograms

// What of a quantization decides how long it takes to make: not in how many bits.
std::string grid_text(const std::optional<QuantSpec>& spec) {
  if (!spec) return "float";
  if (spec->storage != Storage::none) return type_text(*spec);
  return fmt::format("{} {} {}{}{}", spec->type.kind == NumberType::Kind::integer ? "int" : "float", to_text(spec->granularity), to_text(spec->range), spec->symmetric ? "" : " asymmetric",
                     spec->dynamic ? "" : " static");
}

// Whether all of the calibration text passes through blocks rather than the measured sample.
bool learns(const Recipe& recipe) {
  const auto reads = [&](const StageSpec& stage) { return find_method(stage.method)->needs_calibration || (weighs_by_inputs(stage) && recipe.importance.empty()); };
  return std::any_of(recipe.pipeline.begin(), recipe.pipeline.end(), reads) || recipe.scheme.has_static_activations() || recipe.scheme.has_static_cache() || !recipe.checkpoint.empty();
}

std::string stage_text(const StageSpec& stage) {
  std::string text = stage.method;
  for (const KnobInfo& info : find_method(stage.method)->knobs) text += fmt::format(" {}={}", info.name, to_text(knob(stage, info.name)));
  return text;
}

}  // namespace

std::string statistics_of(const Recipe& recipe, const std::string& model_hash, const std::string& calibration_hash, const std::string& device) {
  if (!recipe.calibration || !recipe.checkpoint.empty()) return {};
  return fmt::format("{} {} {} {} {} {}", model_hash, calibration_hash, recipe.dtype, device, recipe.propagate_quantized ? "passed on" : "float inputs", learns(recipe) ? "all" : "sample");
}

std::string conditions_of(const std::string& model_hash, const std::string& device, const EvaluationResult& of) {
  std::string text = fmt::format("{} {} {} {} {} {} {}", model_hash, of.corpus_hash, of.seq_len, of.windows, of.dtype, of.bos, device);
  if (of.evaluator != "perplexity") text += " " + of.evaluator;
  for (const auto& [name, value] : of.settings) text += fmt::format(" {} {}", name, to_text(value));
  return text;
}

RunWork work_of(const Recipe& recipe, const ModelInfo& model, const TextLengths& texts) {
  RunWork work;
  const std::vector<StageSpec> stages = recipe.checkpoint.empty() ? complete_pipeline(recipe.pipeline) : std::vector<StageSpec>{};
  for (const StageSpec& stage : stages) {
    work.kind += stage_text(stage) + "; ";
    work.methods += (work.methods.empty() ? "" : " → ") + stage.method;
  }
  if (stages.empty()) work.methods = "imported";
  const Scheme& scheme = recipe.scheme;
  work.kind += fmt::format("{}{}; {} {} {} {} {}; {}; {}", scheme.mix, grid_text(scheme.weights), grid_text(scheme.activations), grid_text(scheme.kv_cache), grid_text(scheme.embedding), grid_text(scheme.head),
                           to_text(scheme.head_rounding), recipe.dtype, recipe.propagate_quantized ? "propagated" : "float inputs");
  work.cost = static_cast<int>(cost_of(Preset{{}, {}, {}, scheme, recipe.pipeline}));

  std::map<std::pair<int64_t, int64_t>, double> shapes;
  double weights = 0, per_token = 0, in_blocks = 0;
  for (const BlockInfo& block : model.blocks)
    for (const LinearInfo& linear : block.linears) {
      const double size = static_cast<double>(linear.out_features) * static_cast<double>(linear.in_features);
      const bool expert = model.experts > 0 && linear.name.find("experts.") != std::string::npos && linear.name.find("shared") == std::string::npos;
      weights += size;
      per_token += expert ? size * static_cast<double>(std::max<int64_t>(1, model.experts_per_token)) / static_cast<double>(model.experts) : size;
      in_blocks += static_cast<double>(linear.bytes);
      if (scheme.weights_of(linear.tensor.substr(0, linear.tensor.rfind('.')))) shapes[{linear.out_features, linear.in_features}] += 1;
    }
  for (const auto& [shape, count] : shapes) work.shapes.push_back({shape.first, shape.second, count, 0});
  const double outside = in_blocks > 0 ? std::max(0.0, static_cast<double>(model.bytes) - in_blocks) * weights / in_blocks : 0;
  // Scores and contexts of the tokens before it.
  const auto attention = [&](double length) { return static_cast<double>(model.blocks.size()) * length * static_cast<double>(model.heads * model.head_dim); };
  const double all = texts.calibration, sample = std::min(all, kMeasuredTokens), through = per_token + attention(texts.sample_length);
  // One that collects, one through the quantized block, and the float model's of the sample.
  const double seen = learns(recipe) ? all : sample;
  work.passes = (2 * seen + sample) * through + kBlockTokens * weights;
  // The float states are there, and where nothing is passed on the statistics of every block, too.
  work.passes_known = (recipe.propagate_quantized ? 2 * seen : sample) * through + kBlockTokens * weights;
  if (const auto guided = guided_wish(stages)) {
    // Statistics of weighted tokens are each run's own; gradients, of a pass forward and about three more back, are left to others.
    const double there = guided->samples > 0 ? std::min(all, static_cast<double>(guided->samples) * texts.sample_length) : all;
    work.passes_known = work.passes;
    work.passes += there * (4 * through + 3 * outside / 2);
  }
  work.measure = (sample + 256) * weights;
  const StageSpec* finishing = finishing_stage(recipe.pipeline);
  const double tuned = finishing ? all * tuning_passes(tuning_options(*finishing), static_cast<int64_t>(all / std::max(1.0, texts.sample_length))) : 0;
  work.other = (256 + tuned) * (weights + outside);
  work.load = 1e5 + texts.read;
  const std::string rounded = fmt::format("{} {}", scheme.activations ? grid_text(scheme.activations) : "", scheme.kv_cache ? grid_text(scheme.kv_cache) : "");
  for (size_t i = 0; i < recipe.evaluation.size() && i < texts.evaluation.size(); ++i) {
    const EvaluationSpec& spec = recipe.evaluation[i];
    RunWork::Evaluation evaluation{texts.conditions[i], fmt::format("{} {} {}", spec.evaluator, spec.dtype, rounded), texts.evaluation[i] * (per_token + outside + attention(static_cast<double>(spec.seq_len))), 0, false};
    work.evaluations.push_back(evaluation);
    if (!recipe.evaluate_float) continue;
    evaluation.sort = fmt::format("{} {} float", spec.evaluator, spec.dtype);
    evaluation.of_float = true;
    work.evaluations.push_back(std::move(evaluation));
  }
  return work;
}

struct RunPlanner::Opened {
  std::string key;
  RunInputs inputs;
};

RunPlanner::RunPlanner(RunOptions options, fs::path workspace) : options_(std::move(options)), workspace_(std::move(workspace)) {}
RunPlanner::~RunPlanner() = default;

RunPlan RunPlanner::plan(const Recipe& recipe) {
  validate(recipe);
  // What load_inputs() reads.
  Recipe files;
  files.model = recipe.model;
  files.dequantize = recipe.dequantize;
  files.checkpoint = recipe.checkpoint;
  files.calibration = recipe.calibration;
  files.importance = recipe.importance;
  files.evaluation = recipe.evaluation;
  if (const std::string key = to_yaml(files); !opened_ || opened_->key != key) {
    opened_.reset();  // two models at once may be too much
    opened_ = std::make_unique<Opened>(Opened{key, load_inputs(recipe, {})});
  }
  const RunInputs& inputs = opened_->inputs;
  require_target(recipe, *inputs.model);
  const Recipe closed = for_target(recipe, inputs.model->info.dtype);
  const EngineJob job = make_job(closed, inputs, options_, workspace_);
  qb::preflight(job);
  RunPlan plan;
  plan.notes = notes_of(recipe, *inputs.model);
  plan.recipe_hash = recipe_hash(closed);
  plan.model_hash = inputs.model_hash;
  plan.calibration_hash = inputs.calibration.hash;

  TextLengths texts;
  texts.calibration = static_cast<double>(inputs.calibration.tokens());
  texts.sample_length = inputs.calibration.samples.empty() ? 0 : texts.calibration / static_cast<double>(inputs.calibration.samples.size());
  texts.read = texts.calibration;
  for (size_t i = 0; i < inputs.texts.size(); ++i) {
    const EvaluationSpec& spec = recipe.evaluation[i];
    const RunText& text = inputs.texts[i];
    const double windows = text.windows(spec);
    texts.read += static_cast<double>(text.task ? text.task_tokens : static_cast<int64_t>(text.ids.size()));
    texts.evaluation.push_back(text.tokens(spec));
    EvaluationResult conditions;
    conditions.evaluator = spec.evaluator;
    conditions.corpus_hash = text.hash;
    conditions.seq_len = text.task ? 0 : spec.seq_len;
    conditions.windows = static_cast<int64_t>(windows);
    conditions.dtype = spec.dtype;
    conditions.bos = to_text(text.bos);
    conditions.settings = text.settings(spec);
    texts.conditions.push_back(conditions_of(inputs.model_hash, options_.device, conditions));
  }
  plan.work = work_of(closed, inputs.model->info, texts);
  plan.work.statistics = statistics_of(closed, inputs.model_hash, inputs.calibration.hash, options_.device);
  const EngineNeeds needs = estimate(job);
  const bool gpu = options_.device != "cpu";
  size_t linears = 0;
  for (const BlockInfo& block : inputs.model->info.blocks) linears += block.linears.size();
  plan.device_bytes = gpu ? needs.device_bytes : 0;
  plan.memory_bytes = kProgramBytes + needs.states_bytes + (gpu ? 0 : needs.device_bytes);
  plan.disk_bytes = needs.disk_bytes + kReportBytes * static_cast<double>(linears);
  return plan;
}

}  // namespace qb
