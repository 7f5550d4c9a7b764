#include "core/recipe/llmc_methods.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "core/base/error.h"

// Methods and keys: ModelTC/llmc, llmc/compression/quantization (July 2025).
namespace qb {
namespace {

struct KnobName {
  const char *theirs, *ours;
};

// Methods that are one stage of ours with their knobs under other names.
struct Counterpart {
  const char *theirs, *ours;
  std::vector<KnobName> knobs;
};

const std::vector<Counterpart>& counterparts() {
  static const std::vector<Counterpart> list = {
      {"RTN", "rtn", {}},
      {"GPTQ", "gptq", {{"actorder", "actorder"}, {"static_groups", "static_groups"}, {"percdamp", "percdamp"}, {"blocksize", "blocksize"}, {"true_sequential", "true_sequential"}}},
      {"Awq", "awq", {{"trans_version", "trans_version"}, {"do_gqa_trans", "do_gqa_trans"}}},
      {"SmoothQuant", "smoothquant", {{"alpha", "alpha"}}},
      {"OsPlus", "os_plus", {{"use_shift", "use_shift"}}},
      {"OmniQuant", "omniquant", {{"lwc", "lwc"}, {"let", "let"}, {"lwc_lr", "lwc_lr"}, {"let_lr", "let_lr"}, {"alpha", "alpha"}, {"epochs", "epochs"}, {"wd", "wd"}, {"aug_loss", "aug_loss"}}},
      {"NormTweaking", "norm_tweaking", {{"ntweak_lr", "ntweak_lr"}, {"gamma", "gamma"}, {"epochs", "epochs"}}},
      {"TesseraQ", "tesseraq", {{"lr", "lr"}, {"scale_lr", "scale_lr"}, {"iterations", "iterations"}, {"batch_size", "batch_size"}, {"optimize_scale", "optimize_scale"}}},
      {"SpQR", "spqr", {{"relative_threshold", "relative_threshold"}, {"simplified_outliers", "simplified_outliers"}, {"percdamp", "percdamp"}}},
      {"AdaDim", "adadim", {}},
      {"DGQ", "dgq", {}},
      {"QUIK", "quik", {{"fp_features", "columns"}}},
      {"Quarot", "quarot", {{"rotate_mode", "rotate_mode"}}},
  };
  return list;
}

const KnobInfo& knob_info(const std::string& method, const std::string& name) {
  for (const KnobInfo& knob : find_method(method)->knobs)
    if (knob.name == name) return knob;
  throw InternalError(fmt::format("method {} has no knob {}", method, name));
}

std::optional<KnobValue> read(YamlMap& map, const std::string& key, const KnobInfo& knob) {
  switch (knob.type) {
    case KnobType::boolean: if (auto v = map.boolean(key)) return *v; break;
    case KnobType::integer: if (auto v = map.integer(key, static_cast<int64_t>(knob.minimum), static_cast<int64_t>(knob.maximum))) return *v; break;
    case KnobType::real: if (auto v = map.real(key, knob.minimum, knob.maximum)) return *v; break;
    case KnobType::choice:
      if (auto v = map.text(key)) {
        if (std::find(knob.choices.begin(), knob.choices.end(), *v) == knob.choices.end())
          map.fail(key, fmt::format("expected {}, found \"{}\"", fmt::join(knob.choices, " or "), *v));
        return *v;
      }
      break;
  }
  return std::nullopt;
}

// LLMC's clipping belongs to the method; here it is a stage before the rounding.
StageSpec clip_stage(YamlMap* special) {
  StageSpec clip{"clip", {}};
  if (auto symmetric = special ? special->boolean("clip_sym") : std::nullopt) clip.knobs["clip_sym"] = std::string(*symmetric ? "symmetric" : "asymmetric");
  return clip;
}

std::string plain(const KnobValue& value) {
  if (const bool* b = std::get_if<bool>(&value)) return *b ? "True" : "False";
  if (const double* d = std::get_if<double>(&value)) {  // PyYAML takes 1e-06 for a text
    std::string text = fmt::format("{:.12f}", *d);
    while (text.back() == '0' && text[text.size() - 2] != '.') text.pop_back();
    return text;
  }
  return to_text(value);
}

}  // namespace

bool known_from_llmc(const std::string& method) {
  const auto& list = counterparts();
  return std::any_of(list.begin(), list.end(), [&](const Counterpart& c) { return method == c.theirs; });
}

std::vector<StageSpec> stages_from_llmc(const std::string& method, YamlMap* special, std::vector<std::string>& notes) {
  const auto& list = counterparts();
  const auto found = std::find_if(list.begin(), list.end(), [&](const Counterpart& c) { return method == c.theirs; });
  StageSpec stage{found->ours, {}};
  bool clip = false, owq = false;
  if (special) {
    owq = method == "GPTQ" && special->boolean("owq").value_or(false);
    if (owq) {
      stage.method = "owq";
      special->node("n_outs");
      notes.push_back("quant.special.n_outs became a share of every linear's columns; set pipeline.share");
    }
    for (const KnobName& name : found->knobs) {
      if (owq && !(std::string(name.ours) == "percdamp" || std::string(name.ours) == "blocksize")) {
        special->node(name.theirs);
        continue;
      }
      if (auto value = read(*special, name.theirs, knob_info(stage.method, name.ours))) stage.knobs[name.ours] = *value;
    }
    // How much memory and how many batches at once decide nothing here.
    for (const char* indifferent : {"save_mem", "awq_bs", "chunk_num", "deactive_amp", "fp32_had", "reduce_memory", "save_scale", "save_clip"}) special->node(indifferent);
    if (method == "Quarot" && special->boolean("online_rotate").value_or(false)) stage.knobs["online_down"] = stage.knobs["online_heads"] = true;
    clip = special->boolean("weight_clip").value_or(method == "Awq") || special->boolean("search_clip_init").value_or(false);
    if (method == "QUIK") {
      if (special->boolean("fp_relative").value_or(false)) special->fail("fp_relative", "columns in proportion to the width have no counterpart; expected False and a number in fp_features");
      if (special->real("fp_threshold", 0, 1e9).value_or(0) != 0) special->fail("fp_threshold", "linears that keep no columns have no counterpart; expected 0.0");
      special->node("last_fc_bit");
    }
    if (method == "SpQR")
      for (const char* part : {"scale", "zero"})
        if (auto level = special->map(part)) {
          if (auto bits = level->integer("bit", 2, 8)) stage.knobs["scale_bits"] = *bits;
          if (auto group = level->integer("group_size", 2, 1024)) stage.knobs["scale_group"] = *group;
        }
  } else {
    clip = method == "Awq";
  }
  std::vector<StageSpec> stages;
  if (method == "DGQ") {  // LLMC's own steps, and the smoothing that it does before them
    stage.knobs["channel_steps"] = int64_t{20};
    stage.knobs["group_steps"] = int64_t{80};
    return {{"smoothquant", {{"alpha", 0.5}}}, stage};
  }
  if (method == "QUIK")
    notes.push_back("quant.method QUIK: the columns beside the kept ones are rounded by GPTQ here, and where activations are quantized those of kept columns are too");
  if (method == "Awq") {
    if (!stage.knobs.contains("do_gqa_trans")) stage.knobs["do_gqa_trans"] = false;  // LLMC's default
    if (!special || special->boolean("trans").value_or(true)) stages.push_back(stage);
    if (clip) stages.push_back(clip_stage(special));
    return stages;
  }
  if (clip && (method == "OmniQuant" || method == "TesseraQ")) stages.push_back(clip_stage(special));
  stages.push_back(std::move(stage));
  return stages;
}

LlmcMethod llmc_method(const std::vector<StageSpec>& pipeline, bool symmetric, std::vector<std::string>& notes) {
  std::vector<StageSpec> stages = pipeline;
  if (stages.size() > 1 && stages.back().method == "rtn") stages.pop_back();  // implied
  const auto clip = std::find_if(stages.begin(), stages.end(), [](const StageSpec& s) { return s.method == "clip"; });
  std::optional<StageSpec> clipping;
  if (clip != stages.end()) {
    clipping = *clip;
    stages.erase(clip);
  }
  const auto& list = counterparts();
  auto refuse = [&](size_t i, const std::string& why) { throw RecipeError("", 0, 0, fmt::format("pipeline[{}].method", i), why); };
  const bool dgq = !stages.empty() && stages.back().method == "dgq";
  if (dgq) {  // LLMC smooths by itself
    if (stages.size() == 1 || stages.front().method != "smoothquant") refuse(0, "LLMC's DGQ smooths with smoothquant first; expected smoothquant before dgq");
    if (knob<double>(stages.front(), "alpha") != 0.5) throw RecipeError("", 0, 0, "pipeline[0].alpha", "LLMC's DGQ smooths with alpha 0.5");
    if (clipping) refuse(0, "LLMC cannot clip before DGQ");
    StageSpec smoothing = stages.front();
    smoothing.knobs.erase("alpha");
    for (const auto& [name, value] : smoothing.knobs) notes.push_back(fmt::format("smoothquant.{}: LLMC has no such setting", name));
    stages.erase(stages.begin());
    for (const auto& [name, steps] : {std::pair<const char*, int64_t>{"channel_steps", 20}, std::pair<const char*, int64_t>{"group_steps", 80}}) {
      if (const auto own = knob<int64_t>(stages.front(), name); own != steps) notes.push_back(fmt::format("dgq.{}: LLMC tries {}, not {}", name, steps, own));
      stages.front().knobs.erase(name);
    }
  }
  if (stages.size() > 1) refuse(1, fmt::format("LLMC runs one method a file, not {} after {}", stages[1].method, stages[0].method));
  const bool only_clip = stages.empty();
  if (only_clip) stages.push_back({"awq", {}});
  const StageSpec& stage = stages.front();
  const auto found = std::find_if(list.begin(), list.end(), [&](const Counterpart& c) { return stage.method == c.ours; });
  if (found == list.end()) refuse(0, fmt::format("{} has no counterpart in LLMC", stage.method));
  LlmcMethod result{found->theirs, {}};
  if (stage.method == "awq") {
    result.special.emplace_back("trans", only_clip ? "False" : "True");
    result.special.emplace_back("weight_clip", clipping ? "True" : "False");
  } else if (clipping) {
    if (stage.method != "omniquant" && stage.method != "tesseraq") refuse(1, fmt::format("LLMC cannot clip before {}", found->theirs));
    result.special.emplace_back(stage.method == "omniquant" ? "search_clip_init" : "weight_clip", "True");
  }
  if (clipping) {
    const auto which = knob<std::string>(*clipping, "clip_sym");
    result.special.emplace_back("clip_sym", plain(which == "scheme" ? symmetric : which == "symmetric"));
    for (const auto& [name, value] : clipping->knobs)
      if (name != "clip_sym") notes.push_back(fmt::format("clip.{}: LLMC has no such setting", name));
  }
  if (!only_clip) {
    for (const KnobName& name : found->knobs) result.special.emplace_back(name.theirs, plain(knob(stage, name.ours)));
    for (const auto& [name, value] : stage.knobs)
      if (std::none_of(found->knobs.begin(), found->knobs.end(), [&, n = name](const KnobName& k) { return n == k.ours; }))
        notes.push_back(fmt::format("{}.{}: LLMC has no such setting", stage.method, name));
  }
  if (stage.method == "quik") {
    result.special.emplace_back("fp_relative", "False");
    result.special.emplace_back("fp_threshold", "0.0");
  }
  if (stage.method == "quarot")
    result.special.emplace_back("online_rotate", plain(knob<bool>(stage, "online_down") || knob<bool>(stage, "online_heads")));
  return result;
}

}  // namespace qb
