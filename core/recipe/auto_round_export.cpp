#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <set>

#include "core/recipe/peer_exports.h"

// AutoRound's arguments: intel/auto-round 0.15, auto_round/cli (2026-10).
namespace qb {
namespace {

constexpr const char* kProgram = "AutoRound";

std::string upper(std::string text) {
  for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return text;
}

int64_t group_of(const QuantSpec& spec, const std::string& key) {
  switch (spec.granularity) {
    case Granularity::group: return spec.group_size;
    case Granularity::channel: return -1;
    case Granularity::tensor: return 0;
    default: refuse(key + ".granularity", fmt::format("AutoRound has groups, channels or whole tensors, not {}", to_text(spec.granularity)));
  }
}

void require_integer(const QuantSpec& spec, const std::string& key) {
  if (spec.storage != Storage::none) refuse(key + ".type", fmt::format("AutoRound has no {} beside other types", type_text(spec)));
  if (spec.type.kind != NumberType::Kind::integer || spec.type.bits < 2) refuse(key + ".type", fmt::format("AutoRound quantizes to int2 … int8 here, not to {}", spec.type.text()));
}

// Options that say the scheme; `gguf`: what its format is then called.
std::vector<std::string> scheme_options(const Scheme& scheme, std::string& gguf, std::vector<std::string>& notes) {
  const QuantSpec& weights = *scheme.weights;
  const auto& activations = scheme.activations;
  if (!scheme.mix.empty() || (weights.storage != Storage::none && weights.storage != Storage::nvfp4 && weights.storage != Storage::mxfp4 && weights.storage != Storage::mxfp8)) {
    // Its names of llama.cpp's types.
    static const std::set<std::string> known = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K_S", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "Q8_0"};
    std::string name = upper(scheme.mix.empty() ? type_text(weights) : scheme.mix);
    if (scheme.mix.empty() && (name == "Q4_K" || name == "Q5_K" || name == "Q3_K" || name == "Q2_K")) name += "_S";
    if (!known.contains(name)) refuse(scheme.mix.empty() ? "scheme.weights.type" : "scheme.mix", fmt::format("AutoRound writes no GGUF of {}", name));
    if (activations) refuse("scheme.activations", "AutoRound's GGUF files have float activations");
    gguf = "gguf:" + name;
    for (char& c : gguf) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return {"--scheme", "GGUF:" + name};
  }
  if (weights.storage != Storage::none) {
    if (!activations || activations->storage != weights.storage) refuse("scheme.activations", fmt::format("AutoRound's {} has inputs in the same type", type_text(weights)));
    return {"--scheme", upper(type_text(weights))};
  }
  if (weights.type.kind == NumberType::Kind::floating) {
    const bool e4m3 = weights.type.text() == "e4m3" && activations && activations->type.text() == "e4m3";
    if (e4m3 && weights.granularity == Granularity::channel && !activations->dynamic && activations->granularity == Granularity::tensor) return {"--scheme", "FP8_STATIC"};
    if (e4m3 && weights.granularity == Granularity::block && weights.block_rows == 128 && weights.block_cols == 128 && activations->granularity == Granularity::group && activations->group_size == 128)
      return {"--scheme", "FP8_BLOCK"};
    refuse("scheme.weights.type", "AutoRound has e4m3 per channel with fixed ranges of activations (FP8_STATIC), or in blocks of 128×128 with groups of 128 (FP8_BLOCK)");
  }
  require_integer(weights, "scheme.weights");
  std::vector<std::string> options = {"--bits", std::to_string(weights.type.bits), "--group_size", std::to_string(group_of(weights, "scheme.weights"))};
  if (!weights.symmetric) options.emplace_back("--asym");
  if (!weights.symmetric && !weights.round_zero_point) refuse("scheme.weights.round_zero_point", "AutoRound's zero points are integers");
  if (weights.range != RangeMethod::minmax) notes.push_back(fmt::format("scheme.weights.range: AutoRound has no {} ranges; its own are searched where it rounds", to_text(weights.range)));
  if (activations) {
    require_integer(*activations, "scheme.activations");
    const int64_t group = activations->granularity == Granularity::token ? -1 : group_of(*activations, "scheme.activations");
    options.insert(options.end(), {"--act_bits", std::to_string(activations->type.bits), "--act_group_size", std::to_string(group)});
    if (!activations->symmetric) options.emplace_back("--act_asym");
    if (!activations->dynamic) options.emplace_back("--disable_act_dynamic");
  }
  return options;
}

// Its algorithms and their options.
std::vector<std::string> algorithm_options(const Recipe& recipe, std::vector<std::string>& notes) {
  std::vector<std::string> algorithms, options;
  std::string rounding = "rtn";
  const std::vector<StageSpec> stages = stages_of(recipe);
  for (size_t i = 0; i < stages.size(); ++i) {
    const StageSpec& stage = stages[i];
    const std::string key = fmt::format("pipeline[{}].method", i);
    if (stage.method == "awq") {
      algorithms.emplace_back("awq");
      options.insert(options.end(), {"--awq_duo_scaling", knob<std::string>(stage, "trans_version") == "v1" ? "true" : "false", "--awq_n_grid", std::to_string(knob<int64_t>(stage, "grid"))});
      note_other_knobs(stage, {"trans_version", "grid", "rows", "samples"}, kProgram, notes);
    } else if (stage.method == "clip") {
      if (algorithms.empty() || algorithms.back() != "awq") refuse(key, "AutoRound clips with AWQ alone; expected awq before clip");
      options.emplace_back("--awq_apply_clip");
      note_other_knobs(stage, {}, kProgram, notes);
    } else if (stage.method == "quarot") {
      algorithms.emplace_back("hadamard");
      options.insert(options.end(), {"--rotation_type", knob<std::string>(stage, "rotate_mode") == "hadamard" ? "quarot_hadamard" : "random_hadamard"});
      note_other_knobs(stage, {"rotate_mode"}, kProgram, notes);
    } else if (stage.method == "rtn") {
      options.emplace_back("--disable_opt_rtn");
      note_other_knobs(stage, {}, kProgram, notes);
    } else if (stage.method == "autoround") {
      rounding = "auto_round";
      options.insert(options.end(), {"--iters", std::to_string(knob<int64_t>(stage, "iters")), "--batch_size", std::to_string(knob<int64_t>(stage, "batch_size"))});
      if (const auto lr = knob<double>(stage, "lr"); lr > 0) options.insert(options.end(), {"--lr", number_text(lr)});
      if (const auto lr = knob<double>(stage, "minmax_lr"); lr > 0) options.insert(options.end(), {"--minmax_lr", number_text(lr)});
      if (!knob<bool>(stage, "enable_minmax_tuning")) options.emplace_back("--disable_minmax_tuning");
      note_other_knobs(stage, {"iters", "batch_size", "lr", "minmax_lr", "enable_minmax_tuning", "float_targets"}, kProgram, notes);
    } else if (find_method(stage.method)->kind == MethodClass::reconstruction && find_method(stage.method)->contract.place == Place::blocks && stage.method != "norm_tweaking") {
      if (rounding == "auto_round") continue;
      rounding = "auto_round";
      options.insert(options.end(), {"--iters", "200"});
      notes.push_back(fmt::format("{}: AutoRound has no {}; its own rounding by 200 signed-gradient steps stands in its place", key, stage.method));
    } else if (find_method(stage.method)->kind == MethodClass::reconstruction) {
      notes.push_back(fmt::format("{}: AutoRound has no {}; nothing stands in its place", key, stage.method));
    } else {
      refuse(key, fmt::format("{} has no counterpart in AutoRound", stage.method));
    }
  }
  algorithms.push_back(rounding);
  options.insert(options.begin(), {"--algorithm", fmt::format("{}", fmt::join(algorithms, ","))});
  if (rounding == "auto_round" && !recipe.propagate_quantized) options.emplace_back("--disable_quanted_input");
  return options;
}

}  // namespace

std::string auto_round_script(const Recipe& recipe, std::vector<std::string>& notes) {
  note_common(recipe, kProgram, notes);
  const Scheme& scheme = recipe.scheme;
  std::string gguf;
  std::vector<std::string> words = {"auto-round", "--model", recipe.model.string()};
  const auto add = [&](const std::vector<std::string>& more) { words.insert(words.end(), more.begin(), more.end()); };
  add(scheme_options(scheme, gguf, notes));
  add(algorithm_options(recipe, notes));
  std::vector<std::string> layers, ignored;
  for (const std::string& pattern : scheme.ignore) ignored.push_back(pattern_regex(pattern));
  for (size_t i = 0; i < scheme.overrides.size(); ++i) {
    const SchemeOverride& one = scheme.overrides[i];
    if (!one.weights) {
      ignored.push_back(pattern_regex(one.match));
      continue;
    }
    const std::string key = fmt::format("scheme.overrides[{}].weights", i);
    require_integer(*one.weights, key);
    layers.push_back(fmt::format("{}: {{\"bits\": {}, \"group_size\": {}, \"sym\": {}}}", python_text(pattern_regex(one.match)), one.weights->type.bits, group_of(*one.weights, key), one.weights->symmetric ? "true" : "false"));
  }
  if (std::any_of(ignored.begin(), ignored.end(), [](const std::string& one) { return one.find(',') != std::string::npos; })) refuse("scheme.ignore", "AutoRound separates patterns by commas, which these have");
  if (!ignored.empty()) add({"--ignore_layers", fmt::format("{}", fmt::join(ignored, ","))});
  if (!layers.empty()) add({"--layer_config", fmt::format("{{{}}}", fmt::join(layers, ", "))});
  if (scheme.head) {
    add({"--quant_lm_head"});
    notes.push_back("scheme.head: AutoRound gives the head the linears' scheme");
  }
  if (scheme.kv_cache) {
    if (!scheme.kv_cache->dynamic && scheme.kv_cache->type.text() == "e4m3" && (scheme.kv_cache->granularity == Granularity::tensor || scheme.kv_cache->granularity == Granularity::head))
      add({"--static_kv_dtype", "fp8", "--static_kv_granularity", to_text(scheme.kv_cache->granularity)});
    else
      notes.push_back("scheme.kv_cache: AutoRound's caches are e4m3 with fixed ranges, per tensor or head; not written");
  }
  if (recipe.calibration) {
    const CalibrationSpec& c = *recipe.calibration;
    std::filesystem::path text = c.corpus.path;
    if (text.extension() != ".jsonl" && text.extension() != ".json") {
      text.replace_extension(".jsonl");
      notes.push_back(fmt::format("calibration.corpus: AutoRound reads .json or .jsonl with a sample a line, each of at least {} tokens; make {} of {}", c.sampling.seq_len, text.string(), c.corpus.path.string()));
    }
    if (c.sampling.sampling != "documents") notes.push_back(fmt::format("calibration.sampling: AutoRound takes samples of the file, each cut to its first tokens, not {}", c.sampling.sampling));
    if (c.sampling.bos && c.sampling.bos != Bos::tokenizer) notes.push_back(fmt::format("calibration.bos: AutoRound puts BOS where the tokenizer does; {} is not written", to_text(*c.sampling.bos)));
    add({"--dataset", text.string(), "--nsamples", std::to_string(c.sampling.samples), "--seqlen", std::to_string(c.sampling.seq_len)});
  }
  std::string format = gguf.empty() ? "auto_round" : gguf;
  if (recipe.target && gguf.empty()) {
    const std::string& wanted = recipe.target->format;
    if (wanted == "compressed-tensors") format = "llm_compressor";
    else if (wanted == "gptq") format = "auto_gptq";
    else if (wanted == "awq") format = "auto_awq";
    else if (wanted == "mlx") format = "mlx";
    else notes.push_back(fmt::format("target: AutoRound writes no {} of this scheme; its own format is", wanted));
  }
  add({"--model_dtype", recipe.dtype, "--seed", std::to_string(recipe.seed), "--format", format, "--output_dir", output_name(recipe, "auto-round")});
  // An option a line with what belongs to it; words without anything special in them stand bare.
  std::string y = "#!/bin/sh\n";
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    const bool plain = !word.empty() && std::all_of(word.begin(), word.end(), [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || std::string("-_./:,=").find(c) != std::string::npos; });
    if (i > 0) y += word.rfind("--", 0) == 0 ? " \\\n  " : " ";
    y += plain ? word : shell_text(word);
  }
  return y + "\n";
}

}  // namespace qb
