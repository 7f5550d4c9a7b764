#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "core/recipe/peer_exports.h"

// GPTQModel's arguments: ModelCloud/GPTQModel 7.7, gptqmodel/quantization/config.py (2026-11).
namespace qb {
namespace {

constexpr const char* kProgram = "GPTQModel";

// Bits, groups and symmetry of linears, as QuantizeConfig and its `dynamic` have them.
std::vector<std::string> grid_of(const QuantSpec& spec, const std::string& key, bool quoted) {
  if (spec.storage != Storage::none) refuse(key + ".type", fmt::format("GPTQModel's export here has integers alone, no {}", type_text(spec)));
  if (spec.type.kind != NumberType::Kind::integer || spec.type.bits < 2) refuse(key + ".type", fmt::format("GPTQModel quantizes to int2 … int8, not to {}", spec.type.text()));
  if (spec.granularity != Granularity::group && spec.granularity != Granularity::channel) refuse(key + ".granularity", fmt::format("GPTQModel has groups or channels, not {}", to_text(spec.granularity)));
  if (!spec.symmetric && !spec.round_zero_point) refuse(key + ".round_zero_point", "GPTQModel's zero points are integers");
  const auto item = [&](const char* name, const std::string& value) { return quoted ? fmt::format("\"{}\": {}", name, value) : fmt::format("{}={}", name, value); };
  return {item("bits", std::to_string(spec.type.bits)), item("group_size", std::to_string(spec.granularity == Granularity::group ? spec.group_size : -1)), item("sym", python_bool(spec.symmetric))};
}

}  // namespace

std::string gptqmodel_script(const Recipe& recipe, std::vector<std::string>& notes) {
  note_common(recipe, kProgram, notes);
  const Scheme& scheme = recipe.scheme;
  if (!scheme.mix.empty()) refuse("scheme.mix", fmt::format("GPTQModel has no mixed types of ggml; {} is not written", scheme.mix));
  if (scheme.activations) refuse("scheme.activations", "GPTQModel quantizes weights alone");
  if (scheme.kv_cache) notes.push_back("scheme.kv_cache: GPTQModel leaves keys and values to the engine; not written");
  if (scheme.head) notes.push_back("scheme.head: GPTQModel gives the head the linears' scheme (lm_head=True)");
  const QuantSpec& weights = *scheme.weights;
  std::vector<std::string> arguments = grid_of(weights, "scheme.weights", false);
  if (weights.symmetric && weights.full_scale) notes.push_back("scheme.weights.full_scale: GPTQModel divides by the largest code, 2^(b-1)-1; its scales are a little larger");

  // One method: the rounding, or AWQ where nothing but it stands there.
  const std::vector<StageSpec> stages = stages_of(recipe);
  const auto is = [&](const std::string& method) { return std::find_if(stages.begin(), stages.end(), [&](const StageSpec& s) { return s.method == method; }); };
  bool awq = false, rotated = false, calibrates = true, clip = is("clip") != stages.end();
  const auto gptq = is("gptq");
  for (size_t i = 0; i < stages.size(); ++i) {
    const StageSpec& stage = stages[i];
    const std::string key = fmt::format("pipeline[{}].method", i);
    if (stage.method == "gptq" || stage.method == "clip") continue;
    if (stage.method == "awq") {
      awq = gptq == stages.end();
      if (!awq) notes.push_back(key + ": GPTQModel runs one method; gptq is written, awq before it is not");
    } else if (stage.method == "quarot" && gptq != stages.end()) {
      rotated = true;
      note_other_knobs(stage, {"rotate_mode"}, kProgram, notes);
    } else if (stage.method == "rtn" && stages.size() == 1) {
      calibrates = false;
      note_other_knobs(stage, {}, kProgram, notes);
    } else if (gptq != stages.end() && (find_method(stage.method)->contract.place == Place::finished || stage.method == "norm_tweaking")) {
      notes.push_back(fmt::format("{}: GPTQModel has no {}; nothing stands in its place", key, stage.method));
    } else {
      refuse(key, fmt::format("{} has no counterpart in GPTQModel, which has gptq, awq and rounding to nearest", stage.method));
    }
  }
  if (!awq && gptq == stages.end() && calibrates) refuse("pipeline", "GPTQModel needs gptq, awq or rtn");
  if (awq) {
    if (weights.type.bits != 4) refuse("scheme.weights.type", fmt::format("GPTQModel's AWQ is int4, not {}", weights.type.text()));
    arguments.insert(arguments.end(), {"method=\"awq\"", "format=\"gemm\""});
    note_other_knobs(*is("awq"), {}, kProgram, notes);
    if (clip) note_other_knobs(*is("clip"), {}, kProgram, notes);
    else notes.push_back("clip: GPTQModel's AWQ searches a clipping too");
  } else if (gptq != stages.end()) {
    const bool order = knob<bool>(*gptq, "actorder"), fixed = knob<bool>(*gptq, "static_groups");
    arguments.push_back("desc_act=" + python_bool(order));
    arguments.push_back("act_group_aware=False");
    if (order) arguments.push_back("static_groups=" + python_bool(fixed));
    arguments.push_back("damp_percent=" + number_text(knob<double>(*gptq, "percdamp")));
    arguments.push_back("true_sequential=" + python_bool(knob<bool>(*gptq, "true_sequential")));
    if (clip) notes.push_back("clip: GPTQModel has no clipping search by the inputs; ranges of least weight error (mse) are written instead");
    if (weights.range == RangeMethod::mse || clip) arguments.push_back("mse=" + number_text(weights.range == RangeMethod::mse ? weights.mse_norm : 2.4));
    if (rotated) arguments.push_back(fmt::format("rotation=\"{}\"", knob<std::string>(*is("quarot"), "rotate_mode") == "hadamard" ? "hadamard" : "random"));
    note_other_knobs(*gptq, {"actorder", "static_groups", "percdamp", "true_sequential"}, kProgram, notes);
  }
  if (weights.range == RangeMethod::hqq) refuse("scheme.weights.range", "GPTQModel has no HQQ ranges; expected minmax or mse");
  if (weights.range == RangeMethod::mse && gptq == stages.end()) notes.push_back("scheme.weights.range: GPTQModel searches ranges for GPTQ alone; minmax is written");
  if (!calibrates) arguments.push_back("weight_only={\"method\": \"rtn\"}");
  if (scheme.head) arguments.emplace_back("lm_head=True");
  std::vector<std::string> dynamic;  // the first that matches counts, as here
  for (const std::string& pattern : scheme.ignore) dynamic.push_back(fmt::format("    {}: {{}}", python_text("-:" + pattern_regex(pattern))));
  for (size_t i = 0; i < scheme.overrides.size(); ++i) {
    const SchemeOverride& one = scheme.overrides[i];
    if (!one.weights) dynamic.push_back(fmt::format("    {}: {{}}", python_text("-:" + pattern_regex(one.match))));
    else dynamic.push_back(fmt::format("    {}: {{{}}}", python_text("+:" + pattern_regex(one.match)), fmt::join(grid_of(*one.weights, fmt::format("scheme.overrides[{}].weights", i), true), ", ")));
  }
  if (!recipe.propagate_quantized) notes.push_back("propagate_quantized: GPTQModel calibrates a layer on what the quantized ones before it give");
  if (recipe.target && recipe.target->format != (awq ? "awq" : "gptq")) notes.push_back(fmt::format("target: this writes {}'s format, not {}", awq ? "AWQ" : "GPTQ", recipe.target->format));
  const bool calibrated = recipe.calibration && calibrates;

  std::string y = "#!/usr/bin/env python3\n";
  const std::string windows = calibrated ? python_windows(*recipe.calibration, kProgram, notes) : "";
  y += python_imports(windows);
  y += "import torch\nfrom gptqmodel import GPTQModel, QuantizeConfig\nfrom transformers import AutoTokenizer\n\n";
  y += fmt::format("MODEL = {}\n", python_text(recipe.model.string()));
  if (calibrated) y += fmt::format("TEXT = {}\n", python_text(recipe.calibration->corpus.path.string()));
  y += fmt::format("OUTPUT = {}\n\n", python_text(output_name(recipe, "gptqmodel")));
  if (!dynamic.empty()) {
    y += fmt::format("dynamic = {{\n{},\n}}\n", fmt::join(dynamic, ",\n"));
    arguments.emplace_back("dynamic=dynamic");
  }
  y += fmt::format("config = QuantizeConfig({})\n\n\ndef main():\n    torch.manual_seed({})\n    tokenizer = AutoTokenizer.from_pretrained(MODEL)\n", fmt::join(arguments, ", "), recipe.seed);
  if (calibrated) {
    for (size_t at = 0; at < windows.size();) {
      const size_t end = windows.find('\n', at);
      y += "    " + windows.substr(at, end - at) + "\n";
      at = end + 1;
    }
    y += "    calibration = [{\"input_ids\": window, \"attention_mask\": [1] * len(window)} for window in windows]\n";
  }
  y += fmt::format("    model = GPTQModel.load(MODEL, config)\n    model.quantize({})\n    model.save(OUTPUT)\n\n\nif __name__ == \"__main__\":\n    main()\n", calibrated ? "calibration, batch_size=1" : "calibration=None");
  return y;
}

}  // namespace qb
