#include <fmt/format.h>

#include <map>

#include "core/base/error.h"
#include "core/model/model_info.h"
#include "core/recipe/llmc.h"

// LLMC's keys and spellings: ModelTC/llmc, configs/quantization (July 2025).
namespace qb {
namespace {

std::string quoted(const std::string& text) {
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
std::string data_set(const CorpusSpec& corpus, const char* otherwise) {
  const std::string text = corpus.name + " " + corpus.path.string();
  for (const char* name : {"wikitext2", "pileval", "c4", "ptb"})
    if (text.find(name) != std::string::npos) return name;
  if (text.find("wikitext-2") != std::string::npos) return "wikitext2";
  return otherwise;
}

std::string granularity(const QuantSpec& spec) { return "per_" + to_text(spec.granularity); }

std::string quantizer(const std::string& indent, const QuantSpec& spec, const std::string& key, std::vector<std::string>& notes) {
  std::string text;
  auto line = [&](const std::string& name, const std::string& value) { text += indent + name + ": " + value + "\n"; };
  const bool integer = spec.type.kind == NumberType::Kind::integer;
  if (!integer) line("quant_type", "float-quant");
  line("bit", integer ? std::to_string(spec.type.bits) : spec.type.text());
  line("symmetric", boolean(spec.symmetric));
  line("granularity", granularity(spec));
  if (spec.granularity == Granularity::group) line("group_size", std::to_string(spec.group_size));
  if (spec.granularity == Granularity::channel) line("group_size", "-1");
  if (spec.granularity == Granularity::block) {
    line("block_size", std::to_string(spec.block_rows));
    if (spec.block_rows != spec.block_cols) notes.push_back(fmt::format("{}: LLMC's blocks are square; {}×{} became {}", key, spec.block_rows, spec.block_cols, spec.block_rows));
  }
  if (spec.granularity == Granularity::head) line("head_num", std::to_string(spec.heads));
  if (!integer) line("use_qtorch", "True");
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

}  // namespace

LlmcExport to_llmc(const Recipe& recipe) {
  validate(recipe);
  if (!recipe.scheme.weights)
    throw RecipeError("", 0, 0, "scheme.weights", "LLMC has no method that quantizes activations alone; give weights too");
  for (size_t i = 0; i < recipe.pipeline.size(); ++i)
    if (recipe.pipeline[i].method != "rtn")
      throw RecipeError("", 0, 0, fmt::format("pipeline[{}].method", i), fmt::format("{} has no counterpart in LLMC", recipe.pipeline[i].method));
  LlmcExport result;
  const QuantSpec& weights = *recipe.scheme.weights;
  const bool hqq = weights.range == RangeMethod::hqq;
  std::string& y = result.yaml;
  y += fmt::format("base:\n    seed: &seed {}\n", recipe.seed);
  y += fmt::format("model:\n    type: {}\n    path: {}\n    tokenizer_mode: fast\n    torch_dtype: auto\n", model_type(recipe, result.notes), quoted(recipe.model.string()));
  if (recipe.calibration && !hqq) {
    const CalibrationSpec& c = *recipe.calibration;
    const std::string name = data_set(c.corpus, "custom_txt");
    std::string preproc = c.sampling.sampling;
    if (preproc == "sequential" || preproc == "random_windows" || preproc == "documents") {
      preproc = preproc == "random_windows" ? "wikitext2_gptq" : "txt_general_preproc";
      result.notes.push_back(fmt::format("calibration.sampling: LLMC has no {}; its nearest, {}, is written", c.sampling.sampling, preproc));
    }
    if (name == "custom_txt") result.notes.push_back("calibration.corpus: LLMC reads a folder with samples.json; make one of the text");
    y += fmt::format("calib:\n    name: {}\n    download: False\n    path: {}\n    n_samples: {}\n    bs: 1\n    seq_len: {}\n    preproc: {}\n    seed: *seed\n",
                     name, quoted(c.corpus.path.string()), c.sampling.samples, c.sampling.seq_len, preproc);
  }
  if (!recipe.evaluation.empty()) {
    const EvaluationSpec& e = recipe.evaluation.front();
    y += fmt::format("eval:\n    eval_pos: [{}fake_quant]\n    name: {}\n    download: False\n    path: {}\n    bs: 1\n    seq_len: {}\n    inference_per_block: False\n",
                     recipe.evaluate_float ? "pretrain, " : "", data_set(e.corpus, "custom_ppl"), quoted(e.corpus.path.string()), e.seq_len);
    if (recipe.evaluation.size() > 1) result.notes.push_back("evaluation: only the first text is written");
    if (e.windows > 0) result.notes.push_back(fmt::format("evaluation[0].windows: LLMC measures the whole text, not {} windows", e.windows));
  }
  y += fmt::format("quant:\n    method: {}\n    weight:\n", hqq ? "HQQ" : "RTN");
  y += quantizer("        ", weights, "scheme.weights", result.notes);
  if (recipe.scheme.activations) y += "    act:\n" + quantizer("        ", *recipe.scheme.activations, "scheme.activations", result.notes);
  if (hqq)
    y += fmt::format("    special:\n        axis: 1\n        lp_norm: {}\n        beta: {}\n        kappa: {}\n        iters: {}\n", plain_number(weights.hqq_norm),
                     plain_number(weights.hqq_beta), plain_number(weights.hqq_kappa), weights.hqq_iterations);
  if (!recipe.scheme.ignore.empty()) result.notes.push_back("scheme.ignore: LLMC ignores whole layers by number and name; not written");
  if (!recipe.scheme.overrides.empty()) result.notes.push_back("scheme.overrides: LLMC has no mixed bits; not written");
  y += "save:\n    save_trans: False\n    save_fake: False\n    save_path: /path/to/save/\n";
  return result;
}

}  // namespace qb
