#include "core/engine/patterns.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "core/base/error.h"
#include "core/engine/module_name.h"
#include "core/method/method_info.h"

namespace qb {
namespace {

constexpr const char* kHeads = "heads and embeddings";

struct Parts {
  const char* what;
  std::vector<const char*> of_block;  // in each block
  std::vector<const char*> others;    // whole names
};

// Names of the Hugging Face Hub's models, which the lists of llm-compressor, GPTQModel, AutoAWQ and AutoRound are written for.
const std::vector<Parts>& parts() {
  static const std::vector<Parts> list = {
      {kHeads, {}, {"lm_head", "model.lm_head", "language_model.lm_head", "embed_out", "output_layer", "model.embed_tokens", "model.language_model.embed_tokens", "language_model.model.embed_tokens", "transformer.wte"}},
      {"routers of experts",
       {"mlp.gate", "block_sparse_moe.gate", "feed_forward.router", "mlp.router", "mlp.shared_expert_gate", "feed_forward.gate", "block_sparse_moe.router.layer"},
       {}},
      {"norms", {"input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"}, {"model.norm", "model.language_model.norm"}},
      {"parts for images and sound",
       {},
       {"vision_tower.vision_model.encoder.layers.0.self_attn.q_proj", "model.vision_tower.encoder.layers.0.mlp.fc1", "visual.blocks.0.attn.qkv", "model.visual.blocks.0.mlp.gate_proj",
        "visual.merger.mlp.0", "model.visual.merger.mlp.0", "vision_model.encoder.layers.0.self_attn.q_proj", "model.vision_model.encoder.layers.0.mlp.fc1", "vision_encoder.layers.0.attn.wq",
        "vision_embed_tokens.img_projection.0", "model.vision_embed_tokens.img_projection.0", "multi_modal_projector.linear_1", "model.multi_modal_projector.linear_1", "vision_adapter.mlp.fc1",
        "mm_projector.0", "model.mm_projector.0", "mlp1.1", "connector.modality_projection.proj", "model.connector.modality_projection.proj", "vision_language_adapter.w_in",
        "embed_vision.embedding_projection", "model.embed_vision.embedding_projection", "image_newline", "audio_tower.layers.0.fc1", "model.audio_tower.layers.0.fc1",
        "embed_audio.embedding_projection", "model.embed_audio.embedding_projection", "audio_encoder.layers.0.fc1"}},
      {"layers that predict further tokens", {}, {"mtp.layers.0.mlp.down_proj", "mtp.fc", "model.mtp_layers.0.mlp.down_proj"}}};
  return list;
}

bool is_regular(const std::string& pattern) { return pattern.rfind("re:", 0) == 0; }

// As it is, and as other programs take it: a name without wildcards is one of its parts, a regular expression one of its beginnings.
std::vector<std::string> readings(const std::string& pattern) {
  if (is_regular(pattern)) return {pattern, pattern + ".*"};
  if (pattern.find_first_of("*?") != std::string::npos) return {pattern};
  return {pattern, "*." + pattern, pattern + ".*", "*." + pattern + ".*"};
}

std::vector<std::string> modules_of(const Model& model) {
  std::vector<std::string> modules;
  for (const BlockInfo& block : model.info.blocks)
    for (const LinearInfo& linear : block.linears) modules.push_back(module_of(linear));
  return modules;
}

bool matches_any(const std::string& pattern, const std::vector<std::string>& modules) {
  return std::any_of(modules.begin(), modules.end(), [&](const std::string& module) { return matches(pattern, module); });
}

// Names that a typo may have meant, without the numbers of blocks.
std::vector<std::string> near_names(const std::string& pattern, const std::vector<std::string>& modules) {
  std::string plain;
  for (char c : is_regular(pattern) ? pattern.substr(3) : pattern)
    if (std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.') plain += c;
  const size_t first = plain.find_first_not_of('.'), last = plain.find_last_not_of('.');
  if (first == std::string::npos) return {};
  plain = plain.substr(first, last - first + 1);
  std::vector<std::string> names;
  auto add = [&](const std::string& name) {
    for (size_t at = 0; at != std::string::npos; at = name.find('.', at + 1)) {
      const std::string tail = name.substr(at == 0 ? 0 : at + 1);
      if (std::find(names.begin(), names.end(), tail) == names.end() && tail.find_first_of("0123456789") != 0) names.push_back(tail);
    }
  };
  for (size_t i = 0; i < std::min<size_t>(modules.size(), 64); ++i) add(modules[i]);
  for (const Parts& part : parts()) {
    for (const char* name : part.of_block) add(name);
    for (const char* name : part.others) names.push_back(std::string(name).substr(0, std::string(name).find('.')));
  }
  std::vector<std::string> similar = similar_names(plain, names);
  if (similar.size() > 3) similar.resize(3);
  return similar;
}

}  // namespace

std::string other_part(const std::string& pattern, const Model& model) {
  const std::vector<std::string> forms = readings(pattern), modules = modules_of(model);
  for (const std::string& form : forms)
    if (matches_any(form, modules)) return {};  // then it means linears
  auto named = [&](const std::string& module) { return std::any_of(forms.begin(), forms.end(), [&](const std::string& form) { return matches(form, module); }); };
  for (const Parts& part : parts()) {
    if (std::any_of(part.others.begin(), part.others.end(), named)) return part.what;
    for (const BlockInfo& block : model.info.blocks)
      for (const char* name : part.of_block)
        for (const char* before : {"model.layers.", "model.language_model.layers.", "language_model.model.layers."})
          if (named(fmt::format("{}{}.{}", before, block.index, name))) return part.what;
  }
  const std::set<std::string> linears(modules.begin(), modules.end());
  for (const TensorInfo& tensor : model.source->tensors()) {
    const std::string module = tensor.name.substr(0, tensor.name.find_last_of('.'));
    if (!linears.contains(module) && (named(tensor.name) || named(module))) return "tensors of no linear";
  }
  return {};
}

std::vector<std::string> ignore_notes(const Scheme& scheme, const Model& model) {
  std::vector<std::string> notes;
  for (const std::string& pattern : scheme.ignore)
    if (const std::string part = other_part(pattern, model); part == kHeads) {
      if (scheme.has_vocabulary()) notes.push_back(fmt::format("scheme.ignore: \"{}\" names {}, of which scheme.{} speaks: it is quantized all the same", pattern, part, scheme.head ? "head" : "embedding"));
    } else if (!part.empty())
      notes.push_back(fmt::format("scheme.ignore: \"{}\" names {}, which are never quantized", pattern, part));
  return notes;
}

void require_matches(const Scheme& scheme, const Model& model) {
  const std::vector<std::string> modules = modules_of(model);
  auto require = [&](const std::string& pattern, bool ignored) {
    for (const char* outside : {"lm_head", "model.embed_tokens"})
      if (matches(pattern, outside)) return;
    if (matches_any(pattern, modules) || (ignored && !other_part(pattern, model).empty())) return;
    for (const std::string& wider : is_regular(pattern) ? std::vector<std::string>{pattern + ".*"} : std::vector<std::string>{"*" + pattern, pattern + "*", "*" + pattern + "*"})
      if (matches_any(wider, modules)) throw InputError(fmt::format("scheme: pattern \"{}\" matches no whole module name; did you mean \"{}\"?", pattern, wider));
    const std::vector<std::string> similar = near_names(pattern, modules);
    throw InputError(fmt::format("scheme: pattern \"{}\" matches no linear{}; {}the first block has {}", pattern, ignored ? " and no other part of the model" : "",
                                 similar.empty() ? "" : fmt::format("did you mean {}? ", fmt::join(similar, " or ")),
                                 fmt::join(modules.begin(), modules.begin() + std::min<std::ptrdiff_t>(7, std::ssize(modules)), ", ")));
  };
  for (const std::string& pattern : scheme.ignore) require(pattern, true);
  for (const SchemeOverride& entry : scheme.overrides) require(entry.match, false);
}

}  // namespace qb
