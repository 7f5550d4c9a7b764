#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "core/recipe/peer_exports.h"

// llm-compressor's arguments: vllm-project/llm-compressor 0.14 and compressed-tensors 0.19 (2026-10).
namespace qb {
namespace {

constexpr const char* kProgram = "llm-compressor";

// Its own names of what compressed-tensors stores in microscaling types.
std::string preset(const QuantSpec& weights, const std::optional<QuantSpec>& activations, const std::string& key) {
  const char* name = weights.storage == Storage::nvfp4 ? "NVFP4" : weights.storage == Storage::mxfp4 ? "MXFP4" : weights.storage == Storage::mxfp8 ? "MXFP8" : nullptr;
  if (!name) refuse(key + ".type", fmt::format("llm-compressor has no {}", type_text(weights)));
  if (activations && activations->storage != weights.storage) refuse("scheme.activations", fmt::format("llm-compressor has {} weights with inputs of the same type or float ones, not {}", name, type_text(*activations)));
  return std::string(name) + (activations ? "" : "A16");
}

std::string type_arguments(const QuantSpec& spec, const std::string& key) {
  if (spec.storage != Storage::none) refuse(key + ".type", fmt::format("llm-compressor has no {} here", type_text(spec)));
  if (spec.type.kind == NumberType::Kind::floating && spec.type.text() != "e4m3") refuse(key + ".type", fmt::format("llm-compressor's floats are e4m3, not {}", spec.type.text()));
  return fmt::format("num_bits={}, type=\"{}\", symmetric={}", spec.type.bits, spec.type.kind == NumberType::Kind::integer ? "int" : "float", python_bool(spec.symmetric));
}

// clip: a clipping search of ours stands before the rounding, which its observer stands in for.
std::string weights_arguments(const QuantSpec& spec, bool clip, const std::string& key, std::vector<std::string>& notes) {
  std::string text = type_arguments(spec, key);
  switch (spec.granularity) {
    case Granularity::tensor: text += ", strategy=\"tensor\""; break;
    case Granularity::channel: text += ", strategy=\"channel\""; break;
    case Granularity::group: text += fmt::format(", strategy=\"group\", group_size={}", spec.group_size); break;
    case Granularity::block: text += fmt::format(", strategy=\"block\", block_structure=[{}, {}]", spec.block_rows, spec.block_cols); break;
    default: refuse(key + ".granularity", fmt::format("llm-compressor has no ranges of weights per {}", to_text(spec.granularity)));
  }
  if (spec.range == RangeMethod::hqq) refuse(key + ".range", "llm-compressor has no HQQ; expected minmax or mse");
  if (!spec.symmetric && !spec.round_zero_point) refuse(key + ".round_zero_point", "llm-compressor's zero points are integers");
  if (spec.range == RangeMethod::mse || clip) {
    // Its search shrinks by at most maxshrink, as ours does.
    const bool own = spec.range == RangeMethod::mse;
    text += fmt::format(", observer=\"mse\", observer_kwargs={{\"maxshrink\": {}, \"grid\": {}, \"norm\": {}}}", number_text(own ? spec.mse_max_shrink : 0.5), own ? spec.mse_grid : 100, number_text(own ? spec.mse_norm : 2.4));
  }
  if (spec.type.kind == NumberType::Kind::integer && spec.symmetric && !spec.full_scale) notes.push_back(fmt::format("{}.full_scale: llm-compressor divides by (2^b−1)/2; its scales are a little smaller", key));
  if (spec.narrow_range) notes.push_back(fmt::format("{}.narrow_range: llm-compressor uses the lowest code too", key));
  return text;
}

std::string activations_arguments(const QuantSpec& spec) {
  std::string text = type_arguments(spec, "scheme.activations");
  if (!spec.dynamic) {
    if (spec.granularity != Granularity::tensor) refuse("scheme.activations.granularity", fmt::format("llm-compressor's fixed ranges are per tensor, not per {}", to_text(spec.granularity)));
    return text + ", strategy=\"tensor\", dynamic=False";
  }
  if (spec.granularity == Granularity::group) return text + fmt::format(", strategy=\"group\", group_size={}, dynamic=True", spec.group_size);
  if (spec.granularity != Granularity::token && spec.granularity != Granularity::tensor)
    refuse("scheme.activations.granularity", fmt::format("llm-compressor has activations per token, tensor or group, not per {}", to_text(spec.granularity)));
  return text + fmt::format(", strategy=\"{}\", dynamic=True", to_text(spec.granularity));
}

std::string cache_argument(const std::optional<QuantSpec>& spec, std::vector<std::string>& notes) {
  if (!spec) return "";
  if (spec->dynamic || (spec->granularity != Granularity::tensor && spec->granularity != Granularity::head)) {
    notes.push_back("scheme.kv_cache: llm-compressor's caches have fixed ranges, per tensor or head (dynamic: false); not written");
    return "";
  }
  return fmt::format(", kv_cache_scheme=QuantizationArgs({}, strategy=\"{}\", dynamic=False)", type_arguments(*spec, "scheme.kv_cache"), spec->granularity == Granularity::tensor ? "tensor" : "attn_head");
}

// The modifier that rounds, and those that change the model before it.
struct Modifiers {
  std::vector<std::string> before;
  std::string rounding = "QuantizationModifier", arguments;
  bool clip = false, calibrates = false;
};

Modifiers modifiers_of(const Recipe& recipe, std::vector<std::string>& notes) {
  Modifiers all;
  const std::vector<StageSpec> stages = stages_of(recipe);
  for (size_t i = 0; i < stages.size(); ++i) {
    const StageSpec& stage = stages[i];
    all.calibrates = all.calibrates || find_method(stage.method)->needs_calibration;
    if (stage.method == "awq") {
      // v1 divides by the weights' size too: their "duo" scaling.
      all.before.push_back(fmt::format("AWQModifier(duo_scaling={}, n_grid={})", python_bool(knob<std::string>(stage, "trans_version") == "v1"), knob<int64_t>(stage, "grid")));
      if (knob<std::string>(stage, "objective") == "gram") notes.push_back("awq.objective: llm-compressor compares outputs of modules, not of linears");
      note_other_knobs(stage, {"trans_version", "grid", "objective", "rows", "samples"}, kProgram, notes);
    } else if (stage.method == "smoothquant") {
      all.before.push_back(fmt::format("SmoothQuantModifier(smoothing_strength={})", number_text(knob<double>(stage, "alpha"))));
      note_other_knobs(stage, {"alpha"}, kProgram, notes);
    } else if (stage.method == "quarot") {
      all.before.push_back(fmt::format("SpinQuantModifier(rotations=[\"R1\", \"R2\"{}], transform_type=\"{}\")", knob<bool>(stage, "online_down") ? ", \"R4\"" : "",
                                       knob<std::string>(stage, "rotate_mode") == "hadamard" ? "hadamard" : "random-hadamard"));
      note_other_knobs(stage, {"online_down", "rotate_mode"}, kProgram, notes);
    } else if (stage.method == "clip") {
      all.clip = true;
      notes.push_back("clip: llm-compressor has no clipping search by the inputs; ranges of least weight error (observer mse) are written instead");
    } else if (stage.method == "gptq") {
      all.rounding = "GPTQModifier";
      const bool order = knob<bool>(stage, "actorder");
      if (order && !knob<bool>(stage, "static_groups")) notes.push_back("gptq.static_groups: llm-compressor orders columns with static groups alone");
      all.arguments = fmt::format(", block_size={}, dampening_frac={}, actorder={}", knob<int64_t>(stage, "blocksize"), number_text(knob<double>(stage, "percdamp")), order ? "\"static\"" : "None");
      note_other_knobs(stage, {"actorder", "static_groups", "percdamp", "blocksize"}, kProgram, notes);
    } else if (stage.method == "autoround") {
      all.rounding = "AutoRoundModifier";
      all.arguments = fmt::format(", iters={}, batch_size={}", knob<int64_t>(stage, "iters"), knob<int64_t>(stage, "batch_size"));
      if (const auto lr = knob<double>(stage, "lr"); lr > 0) all.arguments += ", lr=" + number_text(lr);
      note_other_knobs(stage, {"iters", "batch_size", "lr"}, kProgram, notes);
    } else if (stage.method == "rtn") {
      note_other_knobs(stage, {}, kProgram, notes);
    } else if (find_method(stage.method)->contract.place == Place::finished || stage.method == "norm_tweaking") {
      notes.push_back(fmt::format("pipeline[{}].method: llm-compressor has no {}; nothing stands in its place", i, stage.method));
    } else {
      refuse(fmt::format("pipeline[{}].method", i), fmt::format("{} has no counterpart in llm-compressor", stage.method));
    }
  }
  return all;
}

}  // namespace

std::string llm_compressor_script(const Recipe& recipe, std::vector<std::string>& notes) {
  note_common(recipe, kProgram, notes);
  const Scheme& scheme = recipe.scheme;
  if (!scheme.mix.empty()) refuse("scheme.mix", fmt::format("llm-compressor has no types of ggml, and so no {}", scheme.mix));
  const Modifiers modifiers = modifiers_of(recipe, notes);
  const auto weights_of = [&](const QuantSpec& spec, const std::string& targets, const std::string& key) {
    if (spec.storage != Storage::none) return fmt::format("preset_name_to_scheme(\"{}\", {})", preset(spec, scheme.activations, key), targets);
    std::string text = fmt::format("QuantizationScheme(targets={}, weights=QuantizationArgs({})", targets, weights_arguments(spec, modifiers.clip, key, notes));
    if (scheme.activations) text += fmt::format(", input_activations=QuantizationArgs({})", activations_arguments(*scheme.activations));
    return text + ")";
  };
  std::vector<std::string> groups, ignored;
  groups.push_back("    \"group_0\": " + weights_of(*scheme.weights, "[\"Linear\"]", "scheme.weights"));
  for (size_t i = 0; i < scheme.overrides.size(); ++i) {
    const SchemeOverride& one = scheme.overrides[i];
    const std::string pattern = "re:" + pattern_regex(one.match);
    if (!one.weights) ignored.push_back(python_text(pattern));
    else groups.push_back(fmt::format("    \"group_{}\": {}", i + 1, weights_of(*one.weights, "[" + python_text(pattern) + "]", fmt::format("scheme.overrides[{}].weights", i))));
  }
  if (std::count_if(scheme.overrides.begin(), scheme.overrides.end(), [](const auto& o) { return o.weights.has_value(); }) > 1)
    notes.push_back("scheme.overrides: where several match a linear, llm-compressor takes the one that it sorts first, not the first written");
  for (const std::string& pattern : scheme.ignore) ignored.push_back(python_text("re:" + pattern_regex(pattern)));
  if (scheme.head) groups.push_back("    \"head\": " + weights_of(*scheme.head, "[\"re:.*lm_head$\"]", "scheme.head"));
  else ignored.emplace_back("\"lm_head\"");
  if (scheme.head && scheme.activations) notes.push_back("scheme.head: llm-compressor quantizes the head's inputs too");
  const bool storage = scheme.weights->storage != Storage::none;
  if (!recipe.propagate_quantized) notes.push_back("propagate_quantized: llm-compressor calibrates a layer on what the quantized ones before it give");
  if (recipe.target && recipe.target->format != "compressed-tensors") notes.push_back(fmt::format("target: llm-compressor writes compressed-tensors, not {}", recipe.target->format));

  std::string y = "#!/usr/bin/env python3\n";
  const bool calibrated = recipe.calibration && (modifiers.calibrates || scheme.has_static_activations() || scheme.has_static_cache());
  const std::string windows = calibrated ? python_windows(*recipe.calibration, kProgram, notes) : "";
  y += python_imports(windows);
  y += fmt::format("import torch\nfrom compressed_tensors.quantization import QuantizationArgs, QuantizationScheme\n{}{}from llmcompressor import oneshot\n",
                   storage || (scheme.head && scheme.head->storage != Storage::none) ? "from compressed_tensors.quantization.quant_scheme import preset_name_to_scheme\n" : "", calibrated ? "from datasets import Dataset\n" : "");
  const auto uses = [&](const char* name) { return std::any_of(modifiers.before.begin(), modifiers.before.end(), [&](const std::string& one) { return one.rfind(name, 0) == 0; }); };
  if (modifiers.rounding == "AutoRoundModifier") y += "from llmcompressor.modifiers.autoround import AutoRoundModifier\n";
  else y += fmt::format("from llmcompressor.modifiers.quantization import {}\n", modifiers.rounding);
  if (uses("AWQ")) y += "from llmcompressor.modifiers.transform.awq import AWQModifier\n";
  if (uses("SmoothQuant")) y += "from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier\n";
  if (uses("SpinQuant")) y += "from llmcompressor.modifiers.transform.spinquant import SpinQuantModifier\n";
  y += "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n";
  y += fmt::format("MODEL = {}\n", python_text(recipe.model.string()));
  if (calibrated) y += fmt::format("TEXT = {}\n", python_text(recipe.calibration->corpus.path.string()));
  y += fmt::format("OUTPUT = {}\n\nconfig_groups = {{\n{},\n}}\nrecipe = [\n", python_text(output_name(recipe, kProgram)), fmt::join(groups, ",\n"));
  for (const std::string& one : modifiers.before) y += "    " + one + ",\n";
  y += fmt::format("    {}(config_groups=config_groups, ignore=[{}]{}{}),\n]\n\n\ndef main():\n", modifiers.rounding, fmt::join(ignored, ", "), cache_argument(scheme.kv_cache, notes), modifiers.arguments);
  std::string body = fmt::format("torch.manual_seed({})\ntokenizer = AutoTokenizer.from_pretrained(MODEL)\nmodel = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.{})\n", recipe.seed, recipe.dtype);
  if (calibrated) {
    body += windows;
    body += "data = Dataset.from_list([{\"input_ids\": window, \"attention_mask\": [1] * len(window)} for window in windows])\n";
    body += fmt::format("oneshot(model=model, recipe=recipe, processor=tokenizer, dataset=data, max_seq_length={}, num_calibration_samples=len(windows), shuffle_calibration_samples=False)\n", recipe.calibration->sampling.seq_len);
  } else {
    body += "oneshot(model=model, recipe=recipe, processor=tokenizer)\n";
  }
  body += "model.save_pretrained(OUTPUT, save_compressed=True)\ntokenizer.save_pretrained(OUTPUT)\n";
  for (size_t at = 0; at < body.size();) {
    const size_t end = body.find('\n', at);
    y += "    " + body.substr(at, end - at) + "\n";
    at = end + 1;
  }
  return y + "\n\nif __name__ == \"__main__\":\n    main()\n";
}

}  // namespace qb
