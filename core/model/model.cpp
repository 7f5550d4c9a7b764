#include "core/model/model.h"

#include <fmt/format.h>

#include <cstring>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/format/gguf.h"
#include "core/format/safetensors.h"
#include "core/model/canonical_source.h"
#include "core/model/families.h"
#include "core/model/gguf_config.h"
#include "core/model/model_files.h"

namespace qb {
namespace {

bool is_gguf(const std::filesystem::path& path) {
  auto file = MappedFile::open(path);
  return file->size() >= 4 && std::memcmp(file->bytes().data(), "GGUF", 4) == 0;
}

nlohmann::json parse_config(const std::filesystem::path& path) {
  const std::string text = read_text(path, uint64_t{1} << 26);
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    throw InputError(fmt::format("{}: not valid JSON: {}", path.string(), error.what()));
  }
}

// Refuses checkpoints whose weights are codes, not numbers; F8 with scales is read. Returns F8's block size, if any.
std::vector<int64_t> check_quantization(const ConfigFields& fields) {
  const bool mlx = fields.has("quantization") && fields.json().at("quantization").is_object();  // MLX's key, with or without the other
  if (!mlx && !fields.has("quantization_config")) return {};
  const ConfigFields quantization = fields.child(mlx ? "quantization" : "quantization_config");
  fields.without_effect({"quantization_config"});  // how it was made; the stored types say what is read
  // Others have a key of that name too.
  if (mlx && !quantization.has("bits"))
    fields.fail("quantization", quantization.has("quant_algo") ? "none: TensorRT-LLM's and Model Optimizer's codes (quant_algo) are not read" : "none, or MLX's with \"bits\" and \"group_size\"");
  const std::string method = mlx ? "MLX" : quantization.text({"quant_method"}, "?");
  const bool float8 = method == "fp8" || (method == "compressed-tensors" && quantization.text({"format"}, "") == "float-quantized");
  if (method == "mxfp4") return {};  // gpt-oss as it is published: its experts are read as the numbers that they stand for
  if (!float8)
    throw InputError(fmt::format("{}: the checkpoint is already quantized ({}), expected a model with floating-point weights; {}, \"qbench export\" with format dequantized writes them", fields.origin(), method, kQuantizedAdvice));
  const auto block = quantization.integers("weight_block_size");
  if (!block.empty() && (block.size() != 2 || block[0] < 1 || block[1] < 1)) quantization.fail("weight_block_size", "two positive integers");
  return block;
}

std::string model_name(const std::filesystem::path& path, bool gguf) {
  std::error_code ignored;
  std::filesystem::path whole = std::filesystem::weakly_canonical(path, ignored);
  if (whole.filename().empty()) whole = whole.parent_path();
  return gguf ? whole.stem().string() : whole.filename().string();
}

std::string rope_text(const Architecture& a) {
  if (a.position == PositionKind::learned) return "learned positions";
  if (a.position != PositionKind::rotary) return "ALiBi";
  const RopeSpec& rope = a.ropes.front();
  std::string text = fmt::format("rotary, base {}", rope.theta);
  if (rope.kind != RopeSpec::Kind::plain) text += fmt::format(", {} × {}", name_of(rope.kind), rope.factor);
  if (rope.dim < a.head_dim) text += fmt::format(", {} of {} dimensions", rope.dim, a.head_dim);
  if (a.ropes.size() > 1) text += fmt::format("; sliding layers base {}", a.ropes[1].theta);
  return text;
}

std::vector<std::pair<std::string, std::string>> facts_of(const Architecture& a) {
  std::vector<std::pair<std::string, std::string>> facts;
  facts.emplace_back("Attention", a.kv_heads == a.heads ? fmt::format("{} heads of {}", a.heads, a.head_dim)
                                                        : fmt::format("{} query heads on {} key/value heads of {}", a.heads, a.kv_heads, a.head_dim));
  if (const auto count = std::count_if(a.layers.begin(), a.layers.end(), [](const LayerSpec& layer) { return layer.mixer == Mixer::delta; }))
    facts.emplace_back("Linear attention", fmt::format("in {} of {} blocks, {} value heads of {} on {} key heads of {}", count, a.blocks, a.delta.value_heads,
                                                       a.delta.value_dim, a.delta.key_heads, a.delta.key_dim));
  if (const auto count = std::count_if(a.layers.begin(), a.layers.end(), [](const LayerSpec& layer) { return layer.mixer == Mixer::convolution; }))
    facts.emplace_back("Convolutions", fmt::format("of {} tokens in {} of {} blocks", a.convolution_kernel, count, a.blocks));
  if (a.streams.count > 1)
    facts.emplace_back("Hidden states", fmt::format("{} streams, one computed and the others predicted; {} numbers of each token for each block", a.streams.count,
                                                    a.streams.token_width));
  if (const auto count = std::count_if(a.layers.begin(), a.layers.end(), [](const LayerSpec& layer) { return layer.takes_kv >= 0; }))
    facts.emplace_back("Shared keys and values", fmt::format("{} of {} blocks take those of an earlier one", count, a.blocks));
  facts.emplace_back("Positions", rope_text(a));
  int64_t sliding = 0, window = 0;
  for (const LayerSpec& layer : a.layers)
    if (layer.window > 0) ++sliding, window = layer.window;
  if (sliding > 0) facts.emplace_back("Sliding window", fmt::format("{} tokens in {} of {} blocks", window, sliding, a.blocks));
  const std::string norm = std::string(is_layer_norm(a.norm) ? "LayerNorm" : "RMSNorm") + (is_plus_one(a.norm) ? " (1 + weight)" : a.norm_affine ? "" : " without weights");
  facts.emplace_back("Norm", fmt::format("{}, epsilon {}", norm, a.norm_eps));
  facts.emplace_back("MLP", fmt::format("{}{}, {} wide{}", a.gated ? "gated " : "", name_of(a.activation), a.intermediate_size, a.parallel ? ", parallel to attention" : ""));
  if (a.experts > 0)
    facts.emplace_back("Experts", fmt::format("{} of {}, {} wide{}", a.experts_per_token, a.experts, a.expert_intermediate_size,
                                              a.shared_intermediate_size > 0 ? fmt::format(", a shared one of {}", a.shared_intermediate_size) : ""));
  if (a.attention_softcap > 0) facts.emplace_back("Attention soft cap", fmt::format("{}", a.attention_softcap));
  if (a.logit_softcap > 0) facts.emplace_back("Logit soft cap", fmt::format("{}", a.logit_softcap));
  return facts;
}

ModelInfo describe(const std::filesystem::path& path, const std::string& format, const Architecture& a, const TensorSource& stored,
                   const TensorSource& canonical) {
  ModelInfo info;
  info.path = path;
  info.format = format;
  info.name = model_name(path, format == "gguf");
  info.family = a.family;
  info.hidden_size = a.hidden_size, info.intermediate_size = a.intermediate_size, info.heads = a.heads, info.kv_heads = a.kv_heads;
  info.head_dim = a.head_dim, info.vocabulary = a.vocabulary, info.context_length = a.context_length;
  info.experts = a.experts, info.experts_per_token = a.experts_per_token, info.tied_embeddings = a.tied_embeddings;
  for (const TensorInfo& tensor : stored.tensors()) info.bytes += tensor.bytes;
  std::map<std::string, int64_t> elements;
  for (const TensorInfo& tensor : canonical.tensors()) {
    info.parameters += tensor.elements();
    elements[std::string(name_of(tensor.dtype))] += tensor.elements();
  }
  int64_t most = 0;
  for (const auto& [name, count] : elements)
    if (count > most) most = count, info.dtype = name;
  for (int64_t i = 0; i < a.blocks; ++i) {
    BlockInfo block;
    block.index = static_cast<int>(i);
    for (const LinearSpec& linear : a.layers[i].linears) {
      const std::string tensor = a.block_prefix(i) + linear.name + ".weight";
      const TensorInfo* found = canonical.find(tensor);
      block.linears.push_back({linear.name, tensor, linear.subset, linear.input, linear.out, linear.in, std::string(name_of(found->dtype)), found->bytes});
    }
    info.blocks.push_back(std::move(block));
  }
  info.facts = facts_of(a);
  return info;
}

}  // namespace

ModelFiles locate_model(const std::filesystem::path& path) {
  ModelFiles files;
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) throw InputError(fmt::format("{}: no such file or folder", path.string()));
  files.folder = path;
  if (!std::filesystem::is_directory(path, ignored)) {
    if (path.filename() != "config.json" && path.extension() != ".safetensors") {
      if (!is_gguf(path))
        throw InputError(fmt::format("{}: not a GGUF file; expected a .gguf file or a Hugging Face folder with config.json", path.string()));
      files.gguf = true;
      files.folder.clear();
      files.weights = path;
      return files;
    }
    files.folder = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  }
  files.config = files.folder / "config.json";
  files.weights = files.folder;
  if (!std::filesystem::exists(files.config, ignored))
    throw InputError(fmt::format("{}: no config.json in it; expected a Hugging Face folder or a .gguf file", files.folder.string()));
  return files;
}

int64_t longest_sequence(const Architecture& a) {
  const bool stretches = a.position == PositionKind::rotary && a.ropes.front().kind == RopeSpec::Kind::dynamic;
  return stretches ? 0 : a.context_length;
}

std::shared_ptr<const Model> Model::open(const std::filesystem::path& path) { return open(path, {}); }

std::shared_ptr<const Model> Model::open(const std::filesystem::path& path, const Decode& decode) {
  const ModelFiles files = locate_model(path);
  auto model = std::make_shared<Model>();
  model->path = path;
  if (files.gguf) {
    auto gguf = GgufFile::open(files.weights);
    model->architecture = architecture_from_config(config_from_gguf(*gguf, files.weights.string()));
    model->files = canonical_gguf(gguf, model->architecture, family_of_gguf(*gguf->text("general.architecture"))->gguf, files.weights.string());
    model->source = model->files;
    model->info = describe(path, "gguf", model->architecture, *gguf, *model->source);
    if (auto name = gguf->text("general.name"); name && !name->empty()) model->info.name = *name;
    return model;
  }
  const ConfigFields fields(parse_config(files.config), files.config.string());
  std::vector<int64_t> block_size;
  if (decode)
    fields.without_effect({"quantization_config", "quantization"});  // the decoder has read it
  else
    block_size = check_quantization(fields);
  model->architecture = architecture_from_config(fields);
  TensorSourcePtr stored = open_safetensors(files.weights);
  if (decode) stored = decode(stored);
  model->files = canonical_safetensors(stored, model->architecture, files.folder.string(), block_size);
  model->source = model->files;
  model->info = describe(path, "safetensors", model->architecture, *stored, *model->source);
  return model;
}

}  // namespace qb
