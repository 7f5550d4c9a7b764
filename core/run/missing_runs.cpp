#include "core/run/missing_runs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <set>

#include "core/base/error.h"
#include "core/model/model.h"
#include "core/recipe/preset.h"
#include "core/run/served_model.h"

namespace qb {
namespace {

// The paper's stages with the settings that presets have for best practice.
StageSpec awq() { return {"awq", {{"do_gqa_trans", false}}}; }
StageSpec clip() { return {"clip", {{"queries", true}}}; }
StageSpec gptq() { return {"gptq", {{"sweeps", int64_t{8}}, {"shrinkage", 0.25}}}; }

std::string pipeline_text(const std::vector<StageSpec>& pipeline) {
  std::vector<std::string> names;
  for (const StageSpec& stage : pipeline) names.push_back(stage.method);
  return fmt::format("{}", fmt::join(names, " → "));
}

// The kind of work that stages do decides whether a step of the rule was tried, not their settings.
std::vector<std::string> methods_of(const std::vector<StageSpec>& pipeline) {
  std::vector<std::string> names;
  for (const StageSpec& stage : pipeline)
    if (stage.method != "rtn" || pipeline.size() == 1) names.push_back(stage.method);
  return names;
}

bool integers(const std::optional<QuantSpec>& spec, int bits) {
  return spec && spec->storage == Storage::none && spec->type.kind == NumberType::Kind::integer && (bits == 0 || spec->type.bits == bits);
}
bool floats8(const std::optional<QuantSpec>& spec) { return spec && spec->type.kind == NumberType::Kind::floating && spec->type.bits == 8; }

std::string text_of(const CalibrationSpec& c) { return c.corpus.name.empty() ? c.corpus.path.filename().string() : c.corpus.name; }

class Rule {
 public:
  Rule(const Workspace& workspace, const BestPractice& found, const BestWanted& wanted)
      : workspace_(workspace), found_(found), wanted_(wanted), lead_(found.runs.at(static_cast<size_t>(found.chosen)).report), base_(workspace.recipe(lead_.id)) {
    for (const RunReport& head : workspace.list())
      if ((head.model_hash.empty() || head.model_hash == lead_.model_hash) && head.status != RunStatus::failed) {
        try {
          const Recipe recipe = workspace.recipe(head.id);
          if (!head.model_hash.empty() || recipe.model == base_.model) known_.push_back(recipe);  // what waits does not know its model's hash yet
        } catch (const Error&) {  // a damaged folder answers nothing
        }
      }
  }

  MissingRuns find() {
    if (!base_.checkpoint.empty()) {
      result_.advice.push_back(fmt::format("{} is somebody else's checkpoint: no recipe can be made of it", lead_.name));
      return std::move(result_);
    }
    model_ = Model::open(base_.model);
    pipelines();
    data();
    schemes();
    return std::move(result_);
  }

 private:
  bool answered(const Recipe& recipe, bool settings_count) const {
    return std::any_of(known_.begin(), known_.end(), [&](const Recipe& other) {
      const bool same_text = recipe.calibration.has_value() == other.calibration.has_value() && (!recipe.calibration || recipe.calibration->corpus == other.calibration->corpus);
      const bool reads = std::any_of(recipe.pipeline.begin(), recipe.pipeline.end(), [](const StageSpec& s) { return find_method(s.method)->needs_calibration; });
      return other.scheme == recipe.scheme && (settings_count ? other.pipeline == recipe.pipeline : methods_of(other.pipeline) == methods_of(recipe.pipeline)) && (same_text || !reads);
    });
  }

  // Puts it on the list where it can be run, passes the filters and nobody made it.
  void propose(Recipe recipe, const std::string& name, Takeaway takeaway, std::string why, bool settings_count = false) {
    const bool reads = std::any_of(recipe.pipeline.begin(), recipe.pipeline.end(), [](const StageSpec& s) { return find_method(s.method)->needs_calibration; });
    if (reads && !recipe.calibration) {
      if (said_.insert("text").second) result_.advice.push_back(fmt::format("{} has no calibration text, which {} needs: give one", lead_.name, pipeline_text(recipe.pipeline)));
      return;
    }
    if (answered(recipe, settings_count)) return;
    recipe.name = name;
    recipe.description.clear();
    try {
      validate(recipe);
    } catch (const RecipeError&) {  // stages that the scheme does not allow
      return;
    }
    if (!wanted_.engine.empty() && loadable_formats(recipe, wanted_.engine).formats.empty()) return;
    // Of a linear that is large: what groups and channels add is theirs at any size.
    if (wanted_.bits > 0 && (!recipe.scheme.weights || bits_per_weight(*recipe.scheme.weights, 4096, 4096) > wanted_.bits)) return;
    const ServedModel served = served_model(*model_, recipe.scheme);
    if (wanted_.gigabytes > 0 && served.weight_bytes() > wanted_.gigabytes * 1e9) return;
    if (wanted_.hardware) {
      const SpeedPrediction speed = predict_speed(*wanted_.hardware, served, wanted_.conditions);
      if (!speed.fits || speed.decode < wanted_.decode || speed.prefill < wanted_.prefill) return;
    }
    if (std::any_of(result_.runs.begin(), result_.runs.end(), [&](const MissingRun& one) { return one.recipe.scheme == recipe.scheme && one.recipe.pipeline == recipe.pipeline && one.recipe.calibration == recipe.calibration; })) return;
    result_.runs.push_back({std::move(recipe), takeaway, std::move(why)});
  }

  std::string named(const std::vector<StageSpec>& pipeline, const Scheme& scheme) const { return pipeline_text(pipeline) + ", " + describe(scheme); }

  // Takeaway 2 under the leading run's scheme: rounding alone as the measure of the others, then a stage more each.
  void pipelines() {
    std::vector<std::pair<std::vector<StageSpec>, std::string>> steps = {{{{"rtn", {}}}, "rounding to nearest is what every search is measured against"}};
    const bool inputs = base_.scheme.activations.has_value();
    if (inputs && floats8(base_.scheme.activations)) {
      steps.push_back({{{"awq", {}}}, "with 8-bit floats rounding is nearly enough; AWQ is what may still improve it"});
    } else if (inputs) {
      steps.push_back({{{"smoothquant", {}}}, "the cheapest transformation for weights and activations: a rule, no search"});
      steps.push_back({{{"awq", {}}}, "a searched transformation is mostly ahead of SmoothQuant's rule with activations too"});
      steps.push_back({{{"quarot", {}}, {"gptq", {}}}, "rotation, then reconstruction: the paper's pair for weights and activations in codes"});
    } else {
      steps.push_back({{awq(), {"rtn", {}}}, "transformation alone: tells what clipping and reconstruction add"});
      steps.push_back({{awq(), clip()}, "transformation, then clipping in the symmetry of the quantizer: what the paper's rule begins with"});
      steps.push_back({{awq(), clip(), gptq()}, "transformation, clipping, reconstruction: the paper's order of all three"});
      if (base_.scheme.weights && base_.scheme.weights->type.bits <= 3)
        steps.push_back({{awq(), clip(), gptq(), {"e2e_tuning", {}}}, "at 3 bits and below learning from searched values pays; it costs training"});
    }
    for (auto& [pipeline, why] : steps) {
      Recipe recipe = base_;
      recipe.pipeline = pipeline;
      propose(std::move(recipe), named(pipeline, base_.scheme), Takeaway::pipeline, std::move(why));
    }
  }

  // Takeaway 1: the leading pipeline on every calibration text that any run used.
  void data() {
    if (!base_.calibration) return;
    std::vector<CalibrationSpec> texts = {*base_.calibration};
    for (const Recipe& other : known_)
      if (other.calibration && std::none_of(texts.begin(), texts.end(), [&](const CalibrationSpec& c) { return c.corpus == other.calibration->corpus; })) texts.push_back(*other.calibration);
    for (size_t i = 1; i < texts.size(); ++i) {
      Recipe recipe = base_;
      recipe.calibration->corpus = texts[i].corpus;
      propose(std::move(recipe), fmt::format("{}, calibrated on {}", lead_.name, text_of(texts[i])), Takeaway::data,
              fmt::format("the best pipeline was calibrated on {} alone; {} tells whether the choice depends on the text", text_of(texts[0]), text_of(texts[i])), true);
    }
    if (texts.size() == 1)
      result_.advice.push_back(fmt::format("only one calibration text was tried ({}): the rule asks for text like the use. Compare it with the use by qbench texts, and run {} on another one", text_of(texts[0]), lead_.name));
    for (const EvaluationSpec& e : base_.evaluation)
      if (e.corpus.path == base_.calibration->corpus.path)
        result_.advice.push_back(fmt::format("{} both calibrates and evaluates: its figures flatter; evaluate on text that calibration has not seen", text_of(*base_.calibration)));
  }

  // Takeaway 3: one scheme of each kind that practice takes, with the pipeline that the rule has for it.
  void schemes() {
    const auto any = [&](const std::function<bool(const Scheme&)>& is) { return std::any_of(known_.begin(), known_.end(), [&](const Recipe& r) { return is(r.scheme); }); };
    const auto by_preset = [&](const char* preset, const std::string& why) {
      Recipe recipe = base_;
      recipe.name.clear();
      const Preset chosen = find_preset(preset);
      apply(chosen, recipe);
      try {
        fit(recipe, model_->info);
      } catch (const Error&) {
        return;
      }
      const std::string name = named(recipe.pipeline, recipe.scheme);
      propose(std::move(recipe), name, Takeaway::scheme, why);
    };
    const auto computes = [&](const char* type) { return !wanted_.hardware || wanted_.hardware->compute.contains(type); };
    if (!any([](const Scheme& s) { return integers(s.weights, 4) && !s.activations; })) by_preset("best-w4-awq-clip-gptq", "no run has 4-bit weights with float activations, the width that practice takes for decoding");
    if (!any([](const Scheme& s) { return integers(s.weights, 8) && !s.activations; })) by_preset("w8-g128", "no run has 8-bit weights: nearly lossless, and what 4 bits are measured against");
    if (computes("int8") && !any([](const Scheme& s) { return integers(s.weights, 8) && integers(s.activations, 8); }))
      by_preset("smoothquant-w8a8", wanted_.hardware ? fmt::format("{} multiplies int8: 8-bit weights and activations speed up prefill, which 4-bit weights do not", wanted_.hardware->name)
                                                     : std::string("no run has 8-bit weights and activations, which speed up prefill where the hardware multiplies int8"));
    if (wanted_.hardware && wanted_.hardware->compute.contains("fp8") && !any([](const Scheme& s) { return floats8(s.weights) && floats8(s.activations); }))
      by_preset("fp8-dynamic", fmt::format("{} multiplies FP8: rounding is nearly enough there", wanted_.hardware->name));
    if (wanted_.hardware && !base_.scheme.kv_cache) {
      const ServedModel served = served_model(*model_, base_.scheme);
      const double cache = wanted_.conditions.batch * served.cache_bytes(wanted_.conditions.context);
      if (cache > 0.25 * served.weight_bytes()) {
        Recipe recipe = base_;
        recipe.scheme.kv_cache = default_cache_spec();
        const std::string name = named(recipe.pipeline, recipe.scheme);
        propose(std::move(recipe), name, Takeaway::scheme,
                fmt::format("with batch {:g} and {:g} tokens the cache takes {:.0f} % of what the weights do: keys and values in 8 bits halve it", wanted_.conditions.batch, wanted_.conditions.context,
                            100 * cache / served.weight_bytes()));
      }
    }
    for (const BestCandidate& one : found_.runs) {
      const Scheme scheme = workspace_.recipe(one.report.id).scheme;
      const bool narrow = integers(scheme.weights, 2) && !scheme.activations, both = integers(scheme.weights, 4) && integers(scheme.activations, 4);
      if ((narrow || both) && said_.insert(narrow ? "w2" : "w4a4").second)
        result_.advice.push_back(fmt::format("{}: {} more than a fifth of accuracy in the studies of the rule; take it only where its figures say otherwise", one.report.name, narrow ? "2-bit weights lose" : "W4A4 loses"));
    }
  }

  const Workspace& workspace_;
  const BestPractice& found_;
  const BestWanted& wanted_;
  const RunReport& lead_;
  Recipe base_;
  std::vector<Recipe> known_;
  std::shared_ptr<const Model> model_;
  std::set<std::string> said_;
  MissingRuns result_;
};

}  // namespace

std::string to_text(Takeaway value) { return value == Takeaway::data ? "calibration data" : value == Takeaway::pipeline ? "pipeline" : "scheme"; }

MissingRuns missing_runs(const Workspace& workspace, const BestPractice& found, const BestWanted& wanted) {
  if (found.chosen < 0) return {};
  return Rule(workspace, found, wanted).find();
}

}  // namespace qb
