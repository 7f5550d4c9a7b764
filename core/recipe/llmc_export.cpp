#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "core/base/error.h"
#include "core/model/model_info.h"
#include "core/recipe/llmc.h"
#include "core/recipe/llmc_methods.h"

// LLMC's keys and spellings: ModelTC/llmc, configs/quantization (July 2025).
namespace qb {
namespace {

std::string quoted(const std::string& text) {
  // Line ends and controls need double quotes; JSON's form is YAML's too.
  if (std::any_of(text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; })) return nlohmann::json(text).dump(-1, ' ', true);
  std::string out = "'";
  for (char c : text) out += c == '\'' ? std::string("''") : std::string(1, c);
  return out + "'";
}

// PyYAML takes 1e-06 for a text: never write an exponent.
std::string plain_number(double value) {
  std::string text = fmt::format("{:.12f}", value);
  while (text.size() > 3 && text.back() == '0' && text[text.size() - 2] != '.') text.pop_back();
  return text;
}

const char* boolean(bool value) { return value ? "True" : "False"; }

std::string model_type(const Recipe& recipe, std::vector<std::string>& notes) {
  static const std::map<std::string, std::string> types = {
      {"llama", "Llama"},       {"mistral", "Mistral"},   {"mixtral", "Mixtral"}, {"qwen2", "Qwen2"},         {"qwen2_moe", "Qwen2Moe"}, {"phi3", "Phi3"},
      {"gemma2", "Gemma2"},     {"opt", "Opt"},           {"bloom", "Bloom"},     {"falcon", "Falcon"},       {"starcoder2", "Starcoder"},
      {"stablelm", "StableLm"}, {"internlm2", "InternLM2"}};
  std::string family;
  try {
    family = inspect_model(recipe.model).family;
  } catch (const Error&) {
    notes.push_back("model.type: the model could not be opened, Llama is assumed");
    return "Llama";
  }
  const auto it = types.find(family);
  if (it != types.end()) return it->second;
  notes.push_back(fmt::format("model.type: LLMC has no class for {}; Llama is written", family));
  return "Llama";
}

// The data set that LLMC knows a corpus by.
std::string data_set(const CorpusSpec& corpus, std::initializer_list<const char*> known, const char* otherwise) {
  // Its name, or its file's, whole or as a word of it: "c4" is not in "abc42.txt".
  const std::string text = corpus.name + " " + corpus.path.filename().string();
  for (const char* name : known) {
    const size_t at = text.find(name), end = at + std::string(name).size();
    if (at == std::string::npos) continue;
    const bool starts = at == 0 || !std::isalnum(static_cast<unsigned char>(text[at - 1]));
    const bool ends = end == text.size() || !std::isalnum(static_cast<unsigned char>(text[end]));
    if (starts && ends) return name;
  }
  if (text.find("wikitext-2") != std::string::npos) return "wikitext2";
  return otherwise;
}

// What LLMC calls the checkpoint of a target; empty: it has none such.
std::string save_key(const std::optional<TargetSpec>& target) {
  if (!target) return {};
  if (target->format == "awq") return target->engine.empty() || target->engine == "transformers" ? "save_autoawq" : "";
  if (target->format != "compressed-tensors") return {};
  if (target->engine == "sglang") return "save_sgl";
  return target->engine.empty() || target->engine == "vllm" ? "save_vllm" : "";
}

// A token of LLMC's caches is one head's.
std::string cache_granularity(const QuantSpec& spec, std::vector<std::string>& notes) {
  if (spec.granularity == Granularity::token) notes.push_back("scheme.kv_cache.granularity: LLMC's per_token is for each head of a token");
  if (spec.granularity == Granularity::head && !spec.dynamic) notes.push_back("scheme.kv_cache.granularity: LLMC's static caches are per tensor");
  return spec.granularity == Granularity::group ? "per_group" : spec.dynamic ? "per_token" : "per_tensor";
}

std::string granularity(const QuantSpec& spec) { return "per_" + to_text(spec.granularity); }

std::string quantizer(const std::string& indent, const QuantSpec& spec, const std::string& key, std::vector<std::string>& notes, bool cache = false) {
  std::string text;
  auto line = [&](const std::string& name, const std::string& value) { text += indent + name + ": " + value + "\n"; };
  if (spec.storage != Storage::none)
    notes.push_back(fmt::format("{}.type: LLMC has no {}; written as {} in groups of {}", key, type_text(spec), spec.type.text(), spec.group_size));
  const bool integer = spec.type.kind == NumberType::Kind::integer;
  if (!integer) line("quant_type", "float-quant");
  line("bit", integer ? std::to_string(spec.type.bits) : spec.type.text());
  line("symmetric", boolean(spec.symmetric));
  line("granularity", cache ? cache_granularity(spec, notes) : granularity(spec));
  if (spec.granularity == Granularity::group) line("group_size", std::to_string(spec.group_size));
  if (spec.granularity == Granularity::channel) line("group_size", "-1");
  if (spec.granularity == Granularity::block) {
    line("block_size", std::to_string(spec.block_rows));
    if (spec.block_rows != spec.block_cols) notes.push_back(fmt::format("{}: LLMC's blocks are square; {}×{} became {}", key, spec.block_rows, spec.block_cols, spec.block_rows));
  }
  if (spec.granularity == Granularity::head && !cache) line("head_num", std::to_string(spec.heads));
  if (!integer) line("use_qtorch", "True");
  if (!spec.dynamic && spec.storage == Storage::none) {
    line("static", "True");
    line("calib_algo", "static_minmax");
    notes.push_back(fmt::format("{}.dynamic: LLMC's static ranges are the mean of the samples' own, not the largest of all", key));
  }
  if (spec.range == RangeMethod::mse) {
    line("calib_algo", "mse");
    line("mse_grid", std::to_string(spec.mse_grid));
    line("maxshrink", plain_number(spec.mse_max_shrink));
    if (spec.mse_norm != 2.4) notes.push_back(fmt::format("{}.mse_norm: LLMC's norm is fixed at 2.4", key));
  }
  if (integer && !spec.symmetric && !spec.round_zero_point) line("round_zp", "False");
  if (integer && spec.symmetric && spec.full_scale) notes.push_back(fmt::format("{}.full_scale: LLMC divides by the largest code, 2^(b-1)-1; its scales are a little larger", key));
  if (spec.scale_type != ScaleType::f32) notes.push_back(fmt::format("{}.scale_type: LLMC evaluates with unrounded scales", key));
  return text;
}

// "*.4.mlp.down_proj" is block 4's; names without wildcards are whole names. LLMC has no other patterns.
std::string ignored_layers(const std::vector<std::string>& patterns, std::vector<std::string>& notes) {
  static const std::regex in_block(R"(\*\.(\d{1,4})\.([A-Za-z_][\w.]*))"), whole(R"([A-Za-z_][\w.]*)");
  // LLMC's list is blocks × names: only patterns that make a full product can be written.
  std::map<std::string, std::set<int>> blocks_of;
  std::vector<std::string> special;
  for (const std::string& pattern : patterns) {
    std::smatch match;
    if (std::regex_match(pattern, match, in_block))
      blocks_of[match[2]].insert(std::stoi(match[1]));
    else if (std::regex_match(pattern, whole))
      special.push_back(pattern);
    else
      notes.push_back(fmt::format("scheme.ignore: LLMC has block numbers and names, not the pattern \"{}\"; not written", pattern));
  }
  std::set<int> blocks;
  std::vector<std::string> names;
  for (const auto& [name, ids] : blocks_of) {
    if (blocks.empty()) blocks = ids;
    if (ids == blocks)
      names.push_back(name);
    else
      notes.push_back(fmt::format("scheme.ignore: LLMC keeps the same blocks for all names; {} has others and was not written", name));
  }
  if (names.empty() && special.empty()) return "";
  return fmt::format("ignored_layers:\n    block_ids: [{}]\n    layer_names: [{}]\n    speical_names: [{}]\n", fmt::join(blocks, ", "), fmt::join(names, ", "),
                     fmt::join(special, ", "));
}

// Of a recipe in two files which this is.
struct Step {
  int number = 0;            // 0: the only one
  bool rotates = false;      // the first step rotates values at run time, which the second must do too
};
constexpr const char* kFirstFolder = "/path/to/save_step_1/";

LlmcExport write_llmc(const Recipe& recipe, const Step& step) {
  if (!recipe.checkpoint.empty()) throw RecipeError("", 0, 0, "checkpoint", "LLMC has no counterpart of a recipe that measures a checkpoint");
  if (!recipe.scheme.weights)
    throw RecipeError("", 0, 0, "scheme.weights", "LLMC has no method that quantizes activations alone; give weights too");
  LlmcExport result;
  QuantSpec weights = *recipe.scheme.weights;
  std::vector<StageSpec> pipeline = recipe.pipeline;
  // LLMC's HQQ is a method; here it is one too, or a way to find ranges.
  if (pipeline.size() == 1 && pipeline[0].method == "hqq") {
    weights.range = RangeMethod::hqq;
    weights.round_zero_point = false;
    weights.hqq_norm = knob<double>(pipeline[0], "lp_norm");
    weights.hqq_beta = knob<double>(pipeline[0], "beta");
    weights.hqq_kappa = knob<double>(pipeline[0], "kappa");
    weights.hqq_iterations = knob<int64_t>(pipeline[0], "iters");
    pipeline = {{"rtn", {}}};
  }
  const bool hqq = weights.range == RangeMethod::hqq;
  const LlmcMethod method = llmc_method(pipeline, weights.symmetric, result.notes);
  if (hqq && method.method != "RTN") throw RecipeError("", 0, 0, "scheme.weights.range", fmt::format("LLMC cannot combine HQQ with {}", method.method));
  const bool learnable = method.method == "OmniQuant";
  std::string& y = result.yaml;
  y += fmt::format("base:\n    seed: &seed {}\n", recipe.seed);
  y += fmt::format("model:\n    type: {}\n    path: {}\n    tokenizer_mode: fast\n    torch_dtype: torch.{}\n", model_type(recipe, result.notes), quoted(step.number == 2 ? std::string(kFirstFolder) + "transformed_model" : recipe.model.string()), recipe.dtype);
  if (recipe.calibration && hqq) result.notes.push_back("calibration: LLMC's HQQ reads no data; not written");
  if (recipe.calibration && !hqq) {
    const CalibrationSpec& c = *recipe.calibration;
    const std::string name = data_set(c.corpus, {"wikitext2", "pileval", "c4", "ptb", "ultrachat"}, "custom_txt");
    std::string preproc = c.sampling.sampling, chat;
    if (preproc == "sequential" || preproc == "random_windows" || preproc == "documents") {
      preproc = preproc == "random_windows" ? "wikitext2_gptq" : "txt_general_preproc";
      result.notes.push_back(fmt::format("calibration.sampling: LLMC has no {}; its nearest, {}, is written", c.sampling.sampling, preproc));
    }
    if (c.sampling.bos && c.sampling.bos != Bos::tokenizer)
      result.notes.push_back(fmt::format("calibration.bos: LLMC puts BOS where its tokenizer does; {} is not written", to_text(*c.sampling.bos)));
    if (c.corpus.field == "messages") chat = "    apply_chat_template: True\n";
    if (name == "custom_txt") result.notes.push_back("calibration.corpus: LLMC reads a folder with samples.json; make one of the text");
    y += fmt::format("calib:\n    name: {}\n    download: False\n    path: {}\n{}    n_samples: {}\n    bs: 1\n    seq_len: {}\n    preproc: {}\n    seed: {}\n",
                     name, quoted(c.corpus.path.string()), chat, c.sampling.samples, c.sampling.seq_len, preproc,
                     c.sampling.seed == recipe.seed ? "*seed" : std::to_string(c.sampling.seed));
  }
  const auto perplexities = step.number == 1 ? 0 : std::count_if(recipe.evaluation.begin(), recipe.evaluation.end(), [](const EvaluationSpec& e) { return e.evaluator == "perplexity"; });
  if (perplexities > 0) y += "eval:\n";
  for (size_t i = 0; step.number != 1 && i < recipe.evaluation.size(); ++i) {
    const EvaluationSpec& e = recipe.evaluation[i];
    if (e.evaluator != "perplexity") {
      result.notes.push_back(fmt::format("evaluation[{}].evaluator: LLMC measures perplexity alone; {} is not written", i, e.evaluator));
      continue;
    }
    const bool several = perplexities > 1;  // LLMC takes one section or a list of them
    const std::string lead = several ? "    - " : "    ", indent = several ? "      " : "    ";
    y += fmt::format("{1}eval_pos: [{2}fake_quant]\n{0}type: ppl\n{0}name: {3}\n{0}download: False\n{0}path: {4}\n{0}bs: 1\n{0}seq_len: {5}\n{0}inference_per_block: False\n",
                     indent, lead, recipe.evaluate_float ? "pretrain, " : "", data_set(e.corpus, {"wikitext2", "c4", "ptb"}, "custom_ppl"),
                     quoted(e.corpus.path.string()), e.seq_len);
    if (e.bos && e.bos != Bos::tokenizer) result.notes.push_back(fmt::format("evaluation[{}].bos: LLMC puts BOS where its tokenizer does; {} is not written", i, to_text(*e.bos)));
    if (e.windows > 0) result.notes.push_back(fmt::format("evaluation[{}].windows: LLMC measures the whole text, not {} windows", i, e.windows));
  }
  y += fmt::format("quant:\n    method: {}\n    quant_out: {}\n    weight:\n", hqq ? "HQQ" : method.method, boolean(recipe.propagate_quantized));
  if (learnable) y += "        calib_algo: learnable\n        ste: True\n";
  if (method.method == "DGQ") {
    if (weights.granularity != Granularity::group) throw RecipeError("", 0, 0, "scheme.weights.granularity", "LLMC's DGQ has groups");
    y += "        w_1:\n" + quantizer("            ", weights, "scheme.weights", result.notes);
    y += "        w_2:\n            bit: 8\n            symmetric: True\n            granularity: per_channel\n";
  } else {
    y += quantizer("        ", weights, "scheme.weights", result.notes);
  }
  if (recipe.scheme.activations) y += "    act:\n" + quantizer("        ", *recipe.scheme.activations, "scheme.activations", result.notes);
  if (recipe.scheme.kv_cache) y += "    kvcache:\n        method: Naive\n" + quantizer("        ", *recipe.scheme.kv_cache, "scheme.kv_cache", result.notes, true);
  if (hqq)
    y += fmt::format("    special:\n        axis: 1\n        lp_norm: {}\n        beta: {}\n        kappa: {}\n        iters: {}\n", plain_number(weights.hqq_norm),
                     plain_number(weights.hqq_beta), plain_number(weights.hqq_kappa), weights.hqq_iterations);
  if (!hqq && (!method.special.empty() || step.rotates)) {
    y += "    special:\n";
    for (const auto& [key, value] : method.special) y += fmt::format("        {}: {}\n", key, value);
    if (step.rotates) y += "        online_rotate: True\n        fp32_had: True\n";
    if (method.method == "QUIK") y += fmt::format("        last_fc_bit: {}\n", weights.type.bits);
  }
  y += ignored_layers(recipe.scheme.ignore, result.notes);
  if (!recipe.scheme.mix.empty()) result.notes.push_back(fmt::format("scheme.mix: LLMC has no mixed types; {} is not written", recipe.scheme.mix));
  if (recipe.scheme.has_vocabulary()) result.notes.push_back(fmt::format("scheme.{}: LLMC leaves embedding and head float; not written", recipe.scheme.embedding ? "embedding" : "head"));
  if (!recipe.scheme.overrides.empty()) result.notes.push_back("scheme.overrides: LLMC has no mixed bits; not written");
  y += fmt::format("save:\n    save_trans: {}\n    save_fake: False\n", boolean(step.number == 1));
  if (!recipe.importance.empty()) result.notes.push_back("calibration.importance: LLMC reads no importance matrices; not written");
  if (recipe.dequantize) result.notes.push_back("model.dequantize: LLMC reads no quantized models; not written");
  const std::string key = save_key(recipe.target);
  if (!key.empty() && step.number != 1)
    y += fmt::format("    {}: True\n", key);
  else if (recipe.target && key.empty())
    result.notes.push_back(fmt::format("target: LLMC does not write {}{}; not written", recipe.target->format, recipe.target->engine.empty() ? "" : " for " + recipe.target->engine));
  y += fmt::format("    save_path: {}\n", step.number == 1 ? kFirstFolder : "/path/to/save/");
  return result;
}

// The stages of the first of two files: a transformation, with the clipping behind it where the second cannot search it itself. Empty: there
// is no such file.
std::vector<StageSpec> first_stages(const std::vector<StageSpec>& pipeline) {
  static const std::set<std::string> begins = {"awq", "smoothquant", "os_plus", "quarot", "clip"};
  if (pipeline.size() < 2 || !begins.contains(pipeline[0].method)) return {};
  std::vector<StageSpec> first = {pipeline[0]};
  const std::string& last = pipeline.back().method;
  if (pipeline.size() > 2 && pipeline[0].method == "awq" && pipeline[1].method == "clip" && last != "omniquant" && last != "tesseraq") first.push_back(pipeline[1]);
  return first;
}

}  // namespace

LlmcExport to_llmc(const Recipe& recipe) {
  validate(recipe);
  return write_llmc(recipe, {});
}

std::vector<LlmcExport> to_llmc_steps(const Recipe& recipe) {
  validate(recipe);
  try {
    return {write_llmc(recipe, {})};
  } catch (const RecipeError& error) {
    if (error.key().rfind("pipeline[1]", 0) != 0) throw;  // not for the number of its stages
    Recipe first = recipe, second = recipe;
    first.pipeline = first_stages(recipe.pipeline);
    if (first.pipeline.empty()) throw;
    second.pipeline.erase(second.pipeline.begin(), second.pipeline.begin() + static_cast<std::ptrdiff_t>(first.pipeline.size()));
    second.evaluate_float = false;  // the float model of the second file is the transformed one
    const bool rotates = first.pipeline[0].method == "quarot" && (knob<bool>(first.pipeline[0], "online_down") || knob<bool>(first.pipeline[0], "online_heads"));
    std::vector<LlmcExport> steps = {write_llmc(first, {1, false}), write_llmc(second, {2, rotates})};
    if (first.pipeline.size() > 1) steps[1].notes.push_back("clip: LLMC clamps the weights in its first file; what rounding then starts from has lost what was clipped");
    steps[1].notes.push_back(fmt::format("pipeline: two files; the second goes on from {}transformed_model, which the first saves", kFirstFolder));
    return steps;
  }
}

}  // namespace qb
