#include "core/model/stored_quantization.h"

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/python_json.h"
#include "core/model/model_files.h"
#include "core/model/shown_value.h"

namespace qb {
namespace {

[[noreturn]] void refuse_codes(const std::string& origin, const std::string& how) {
  throw InputError(fmt::format("{}: the checkpoint is already quantized ({}), expected a model with floating-point weights; {}, \"qbench export\" with format dequantized writes them", origin, how, kQuantizedAdvice));
}

void require_all_known(const ConfigFields& config) {
  for (const UnreadKey& unread : config.unread())
    throw InputError(fmt::format("{}: key \"{}\" is {}, expected no such key: what it says about the weights is not known", config.origin(), unread.spelled, shown(unread.value)));
}

void require_text(const ConfigFields& config, const std::string& key, std::initializer_list<const char*> allowed) {
  if (!config.has(key)) return;
  std::string found = config.text({key}), known;
  for (const char* one : allowed) {
    if (found == one) return;
    known += (known.empty() ? "" : " or ") + std::string(one);
  }
  config.fail(key, known);
}

std::vector<int64_t> block_of(const ConfigFields& config, const std::string& key) {
  const auto block = config.integers(key);
  if (!block.empty() && (block.size() != 2 || block[0] < 1 || block[1] < 1)) config.fail(key, "two positive integers");
  return block;
}

const char* kActivations = "its weights in F8 are read as the numbers that they stand for; its activations in F8 are not rounded here";
const char* kCache = "its key-value cache in F8 is not rounded here";

StoredQuantization read_fp8(const ConfigFields& config) {
  // Which modules they are, the tensors' own types say.
  config.without_effect({"modules_to_not_convert", "modules_to_convert", "ignored_layers", "dequantize"});
  require_text(config, "activation_scheme", {"dynamic", "static"});
  require_text(config, "fmt", {"e4m3", "float8_e4m3fn"});
  require_text(config, "scale_fmt", {"float", "ue8m0"});
  return {block_of(config, "weight_block_size"), {kActivations}};
}

StoredQuantization read_compressed_tensors(const ConfigFields& config) {
  StoredQuantization found;
  bool activations = false;
  config.without_effect({"ignore", "version", "quantization_status", "global_compression_ratio", "run_compressed", "dequantize", "use_optimized_inference"});
  for (const char* key : {"transform_config", "sparsity_config"}) {
    if (!config.has(key)) continue;
    const bool dense = std::string(key) == "sparsity_config" && config.json().at(key).is_object() && config.json().at(key).value("format", std::string()) == "dense";
    if (!config.json().at(key).empty() && !dense) config.fail(key, "none: weights as they are used");
    config.without_effect({key});
  }
  if (config.has("kv_cache_scheme")) found.notes.push_back(kCache);
  config.without_effect({"kv_cache_scheme"});
  if (!config.has("config_groups")) {
    found.notes.push_back(kActivations);
    return found;
  }
  const ConfigFields groups = config.child("config_groups");
  for (const auto& [name, value] : groups.json().items()) {
    const ConfigFields group = groups.child(name);
    group.without_effect({"targets", "input_activations"});
    activations = activations || group.has("input_activations");
    if (group.has("output_activations")) group.fail("output_activations", "none");
    require_text(group, "format", {"float-quantized", "naive-quantized"});
    if (group.has("weights")) {
      const ConfigFields weights = group.child("weights");
      if (weights.text({"type"}, "int") != "float" || weights.integer({"num_bits"}, 0, 0) != 8) weights.fail("type", "float with num_bits 8 in a float-quantized checkpoint");
      if (!weights.boolean("symmetric", true)) weights.fail("symmetric", "true");
      require_text(weights, "strategy", {"tensor", "channel", "block"});
      if (weights.has("dynamic") && weights.json().at("dynamic") != false) weights.fail("dynamic", "false");
      const auto block = block_of(weights, "block_structure");
      if (!block.empty() && !found.block.empty() && block != found.block) weights.fail("block_structure", "the same blocks in all groups");
      if (!block.empty()) found.block = block;
      weights.without_effect({"dynamic", "observer", "observer_kwargs", "scale_dtype", "zp_dtype", "actorder", "group_size"});
      require_all_known(weights);
    }
    require_all_known(group);
  }
  if (activations) found.notes.push_back(kActivations);
  return found;
}

// modelopt's own file, or the same inside config.json.
StoredQuantization read_modelopt(const ConfigFields& config) {
  config.without_effect({"exclude_modules", "ignore", "producer", "config_groups", "quant_method"});
  const std::string algorithm = config.text({"quant_algo"}, "none");
  if (algorithm != "FP8" && algorithm != "FP8_PER_CHANNEL_PER_TOKEN" && algorithm != "FP8_PB_WO") refuse_codes(config.origin(), fmt::format("modelopt, {}", algorithm));
  StoredQuantization found{{}, {kActivations}};
  require_text(config, "kv_cache_quant_algo", {"FP8"});
  if (config.has("kv_cache_quant_algo") || config.has("kv_cache_scheme")) found.notes.push_back(kCache);
  config.without_effect({"kv_cache_scheme"});
  return found;
}

}  // namespace

StoredQuantization read_stored_quantization(const ConfigFields& fields, const std::filesystem::path& folder) {
  StoredQuantization found;
  if (fields.has("quantization") && fields.json().at("quantization").is_object()) {  // MLX's key, with or without the other; others have one of that name too
    const ConfigFields quantization = fields.child("quantization");
    if (quantization.has("bits")) refuse_codes(fields.origin(), "MLX");
    fields.fail("quantization", quantization.has("quant_algo") ? "none: TensorRT-LLM's and Model Optimizer's codes (quant_algo) are not read" : "none, or MLX's with \"bits\" and \"group_size\"");
  }
  if (!fields.has("quantization_config")) {
    const auto beside = folder / "hf_quant_config.json";
    std::error_code ignored;
    if (!std::filesystem::exists(beside, ignored)) return found;
    nlohmann::json json;
    try {
      json = parse_python_json(read_text(beside, uint64_t{1} << 26));
    } catch (const nlohmann::json::exception& error) {
      throw InputError(fmt::format("{}: not valid JSON: {}", beside.string(), error.what()));
    }
    const ConfigFields whole(std::move(json), beside.string());
    whole.without_effect({"producer"});
    const ConfigFields config = whole.child("quantization");
    found = read_modelopt(config);
    require_all_known(config);
    require_all_known(whole);
    return found;
  }
  const ConfigFields config = fields.child("quantization_config");
  fields.without_effect({"quantization_config"});
  const std::string method = config.text({"quant_method"}, config.has("quant_algo") ? "modelopt" : "?");
  if (method == "fp8") {
    found = read_fp8(config);
  } else if (method == "fbgemm_fp8") {
    config.without_effect({"modules_to_not_convert", "activation_scale_ub"});
    found.notes = {kActivations};
  } else if (method == "compressed-tensors" && config.text({"format"}, "") == "float-quantized") {
    found = read_compressed_tensors(config);
  } else if (method == "modelopt") {
    found = read_modelopt(config);
  } else if (method == "mxfp4") {
    config.without_effect({"modules_to_not_convert", "dequantize"});  // gpt-oss as it is published: its experts are read as the numbers that they stand for
  } else {
    refuse_codes(fields.origin(), method);
  }
  require_all_known(config);
  return found;
}

}  // namespace qb
