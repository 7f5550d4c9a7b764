#include "core/model/model.h"

#include <fmt/format.h>

#include <set>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/python_json.h"
#include "core/format/gguf.h"
#include "core/format/weights.h"
#include "core/model/canonical_source.h"
#include "core/model/families.h"
#include "core/model/gguf_config.h"
#include "core/model/model_files.h"
#include "core/model/stored_quantization.h"

namespace qb {
namespace {

nlohmann::json parse_config(const std::filesystem::path& path) {
  const std::string text = read_text(path, uint64_t{1} << 26);
  try {
    return parse_python_json(text);
  } catch (const nlohmann::json::exception& error) {
    throw InputError(fmt::format("{}: not valid JSON: {}", path.string(), error.what()));
  }
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

bool files_end(const TensorSource& source, std::string_view end) { return !source.files().empty() && source.files().front().string().ends_with(end); }

std::string kind_of(const Architecture& a, const std::string& name) {
  const NameTable& n = a.names;
  const auto is = [&](const std::string& stem) { return !stem.empty() && (name == stem + ".weight" || name == stem + ".bias"); };
  if (is(n.embedding) || is(n.token_inputs)) return "embedding";
  if (is(n.positions)) return "positions";
  if (is(n.head)) return "head";
  if (is(n.router) || is(n.shared_router)) return "router";
  if (name.find("norm") != std::string::npos || name.find("ln_") != std::string::npos) return "norm";
  for (const std::string* norm : {&n.final_norm, &n.embedding_norm, &n.token_norm, &n.input_norm, &n.mlp_norm, &n.post_attention_norm, &n.post_mlp_norm, &n.q_norm, &n.k_norm})
    if (is(*norm)) return "norm";
  return {};
}

OtherTensor other_tensor(const Architecture& a, const std::string& prefix, const std::string& name, const TensorInfo& found) {
  return {name, prefix + name, kind_of(a, name), found.shape, std::string(name_of(found.dtype)), found.bytes};
}

// Biases of linears belong to their matrices and are not listed.
void describe_others(ModelInfo& info, const Architecture& a, const TensorSource& canonical) {
  for (int64_t i = 0; i < a.blocks; ++i)
    for (const TensorSpec& spec : a.layers[static_cast<size_t>(i)].others)
      if (const TensorInfo* found = canonical.find(a.block_prefix(i) + spec.name)) info.blocks[static_cast<size_t>(i)].others.push_back(other_tensor(a, a.block_prefix(i), spec.name, *found));
  const std::string embedding = a.names.embedding + ".weight", head = a.names.head + ".weight";
  bool behind = false;  // of the blocks
  for (const TensorSpec& spec : a.globals) {
    const std::string stem = spec.name.substr(0, spec.name.rfind('.'));
    behind = behind || stem == a.names.project_out || stem == a.names.final_norm || stem == a.names.head;
    const bool streams_in = !a.names.token_inputs.empty() && (stem == a.names.token_inputs || stem == a.names.token_projection || stem == a.names.token_norm);
    if (const TensorInfo* found = canonical.find(spec.name)) (behind && !streams_in ? info.after : info.before).push_back(other_tensor(a, {}, spec.name, *found));
  }
  if (const TensorInfo* found = canonical.find(embedding); found && a.tied_embeddings) {
    OtherTensor tied = other_tensor(a, {}, embedding, *found);
    tied.name = head;
    tied.kind = "head";
    tied.bytes = 0;
    tied.tied = true;
    info.after.push_back(std::move(tied));
  }
}

ModelInfo describe(const std::filesystem::path& path, const ModelFiles& files, const Architecture& a, const TensorSource& stored,
                   const TensorSource& canonical) {
  ModelInfo info;
  info.path = path;
  info.format = files.gguf ? "gguf" : files_end(stored, ".bin") ? "torch" : "safetensors";
  info.name = name_of_model(path, files);
  info.family = a.family;
  info.hidden_size = a.hidden_size, info.intermediate_size = a.intermediate_size, info.heads = a.heads, info.kv_heads = a.kv_heads;
  info.head_dim = a.head_dim, info.vocabulary = a.vocabulary, info.context_length = a.context_length;
  info.experts = a.experts, info.experts_per_token = a.experts_per_token, info.tied_embeddings = a.tied_embeddings;
  std::set<std::tuple<int, uint64_t, uint64_t>> places;  // tensors may share one; what is decoded has none
  for (const TensorInfo& tensor : stored.tensors())
    if (tensor.offset == 0 || places.emplace(tensor.file, tensor.offset, tensor.bytes).second) info.bytes += tensor.bytes;
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
  describe_others(info, a, canonical);
  info.facts = facts_of(a);
  return info;
}

}  // namespace

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
    model->info = describe(path, files, model->architecture, *gguf, *model->source);
    if (auto name = gguf->text("general.name"); name && !name->empty()) model->info.name = *name;
    return model;
  }
  const ConfigFields fields(parse_config(files.config), files.config.string());
  StoredQuantization quantization;
  if (decode)
    fields.without_effect({"quantization_config", "quantization"});  // the decoder has read it
  else
    quantization = read_stored_quantization(fields, files.folder);
  model->architecture = architecture_from_config(fields);
  TensorSourcePtr stored = open_weights(files.weights);
  if (decode) stored = decode(stored);
  if (std::string note = settle_head(*stored, model->architecture); !note.empty()) quantization.notes.push_back(std::move(note));
  model->files = canonical_safetensors(stored, model->architecture, files.folder.string(), quantization.block);
  model->source = model->files;
  model->info = describe(path, files, model->architecture, *stored, *model->source);
  for (std::string& note : quantization.notes) model->info.facts.emplace_back(kNote, std::move(note));
  return model;
}

}  // namespace qb
