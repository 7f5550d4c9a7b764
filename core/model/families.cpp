#include "core/model/families.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/base/error.h"
#include "core/model/family_fields.h"
#include "core/model/foreign_layers.h"
#include "core/model/gguf_families.h"
#include "core/model/model_info.h"
#include "core/model/multimodal.h"

// The families' facts (names, defaults, which fields exist) are those of transformers' configuration and modeling files;
// InternLM2's are those of its published modeling_internlm2.py.
namespace qb {

NameTable with_qwen_shared_expert(NameTable n) {
  n = with_qwen_experts(std::move(n));
  n.shared_gate = "mlp.shared_expert.gate_proj", n.shared_up = "mlp.shared_expert.up_proj", n.shared_down = "mlp.shared_expert.down_proj";
  n.shared_router = "mlp.shared_expert_gate";
  return n;
}

namespace {

NameTable phi3_names() {
  NameTable n = llama_names();
  n.q = n.k = n.v = n.gate = n.up = "";
  n.qkv = "self_attn.qkv_proj", n.gate_up = "mlp.gate_up_proj";
  return n;
}

NameTable gemma2_names() {
  NameTable n = llama_names();
  n.post_attention_norm = "post_attention_layernorm";
  n.mlp_norm = "pre_feedforward_layernorm";
  n.post_mlp_norm = "post_feedforward_layernorm";
  return n;
}

NameTable gemma3_names() {
  NameTable n = gemma2_names();
  n.q_norm = "self_attn.q_norm", n.k_norm = "self_attn.k_norm";
  return n;
}

NameTable opt_names() {
  NameTable n;
  n.embedding = "model.decoder.embed_tokens", n.positions = "model.decoder.embed_positions";
  n.project_in = "model.decoder.project_in", n.project_out = "model.decoder.project_out";
  n.final_norm = "model.decoder.final_layer_norm", n.head = "lm_head", n.block = "model.decoder.layers.";
  n.input_norm = "self_attn_layer_norm", n.mlp_norm = "final_layer_norm";
  n.q = "self_attn.q_proj", n.k = "self_attn.k_proj", n.v = "self_attn.v_proj", n.o = "self_attn.out_proj";
  n.up = "fc1", n.down = "fc2";
  return n;
}

NameTable starcoder2_names() {
  NameTable n = llama_names();
  n.gate = "", n.up = "mlp.c_fc", n.down = "mlp.c_proj";
  return n;
}

NameTable stablelm_names() {
  NameTable n = llama_names();
  n.q_norm = "self_attn.q_layernorm", n.k_norm = "self_attn.k_layernorm";
  return n;
}

NameTable internlm2_names() {
  NameTable n;
  n.embedding = "model.tok_embeddings", n.final_norm = "model.norm", n.head = "output", n.block = "model.layers.";
  n.input_norm = "attention_norm", n.mlp_norm = "ffn_norm";
  n.qkv = "attention.wqkv", n.o = "attention.wo";
  n.gate = "feed_forward.w1", n.up = "feed_forward.w3", n.down = "feed_forward.w2";
  return n;
}

void configure_llama(const ConfigFields& f, Architecture& a) {
  llama_like(f, a, 0, whole_rotation());
  a.qkv_bias = f.boolean("attention_bias", false);
  a.o_bias = f.boolean("attention_output_bias", a.qkv_bias);
  a.mlp_bias = f.boolean("mlp_bias", false);
}

void configure_granite(const ConfigFields& f, Architecture& a) {
  configure_llama(f, a);
  a.embedding_scale = f.real({"embedding_multiplier"}, 1.0);
  a.residual_scale = f.real({"residual_multiplier"}, 1.0);
  a.attention_scale = f.real({"attention_multiplier"}, 1.0);
  a.logit_scale = 1 / f.real({"logits_scaling"}, 1.0);
}

void configure_mistral(const ConfigFields& f, Architecture& a) {
  llama_like(f, a, 8, whole_rotation());
  // With layer_types transformers takes a Mistral for a Ministral, where some layers slide.
  if (!f.has("layer_types")) return set_window(f, a, 4096);
  set_layer_windows(f, a, f.integer({"sliding_window"}, f.json().contains("sliding_window") ? 0 : 4096), {});
}

void configure_mixtral(const ConfigFields& f, Architecture& a) {
  llama_like(f, a, -1, whole_rotation(1e6));
  set_window(f, a, {});
  read_experts(f, a, {"num_local_experts", "num_experts"}, 2);
  a.expert_intermediate_size = a.intermediate_size;
  a.normalise_expert_weights = true;
  for (LayerSpec& layer : a.layers) layer.experts = true;
}

void configure_qwen2(const ConfigFields& f, Architecture& a) {
  llama_like(f, a, 32, whole_rotation());
  a.qkv_bias = true;
  read_qwen_windows(f, a);
}

void configure_qwen3(const ConfigFields& f, Architecture& a) {
  f.integer({"head_dim"});  // 128 in transformers when absent: too easily wrong to guess
  llama_like(f, a, 32, whole_rotation());
  a.qkv_bias = a.o_bias = f.boolean("attention_bias", false);
  a.head_norm = HeadNorm::rms;
  read_qwen_windows(f, a);
}

}  // namespace

void read_qwen_experts(const ConfigFields& f, Architecture& a, const std::vector<std::string>& count_keys, int64_t used) {
  read_experts(f, a, count_keys, used);
  a.expert_intermediate_size = f.integer({"moe_intermediate_size"}, {}, 1, kMaxWidth);
  a.normalise_expert_weights = f.boolean("norm_topk_prob", false);
  const int64_t step = f.integer({"decoder_sparse_step"}, 1);
  const auto dense = f.integers("mlp_only_layers");
  for (int64_t i = 0; i < a.blocks; ++i)
    a.layers[i].experts = (i + 1) % step == 0 && std::find(dense.begin(), dense.end(), i) == dense.end();
}

namespace {

void configure_qwen2_moe(const ConfigFields& f, Architecture& a) {
  llama_like(f, a, 16, whole_rotation());
  a.qkv_bias = f.boolean("qkv_bias", true);
  read_qwen_experts(f, a, {"num_experts"}, 4);
  a.shared_intermediate_size = f.integer({"shared_expert_intermediate_size"}, {}, 1, kMaxWidth);
  if (!f.boolean("use_sliding_window", false)) {
    f.without_effect({"sliding_window", "max_window_layers"});
  } else {
    const int64_t last = f.integer({"max_window_layers"}, 28, 0);
    set_layer_windows(f, a, f.integer({"sliding_window"}, 4096), [&](int64_t i) { return (i + 1) % 2 != 0 && i < last; });
  }
}

void configure_qwen3_moe(const ConfigFields& f, Architecture& a) {
  llama_like(f, a, -1, whole_rotation());
  a.qkv_bias = a.o_bias = f.boolean("attention_bias", false);
  a.head_norm = HeadNorm::rms;
  read_qwen_experts(f, a, {"num_experts", "num_local_experts"}, 8);
  if (f.boolean("use_sliding_window", false)) set_window(f, a, 4096);
  f.without_effect({"sliding_window", "max_window_layers"});
}

void configure_phi3(const ConfigFields& f, Architecture& a) {
  RopeDefaults rope;
  rope.all_longrope = true;
  llama_like(f, a, 0, rope);
  a.norm_eps = f.real({"rms_norm_eps"}, 1e-5);
  a.qkv = QkvLayout::concatenated;
  f.without_effect({"original_max_position_embeddings"});  // a default without a long rope
  set_window(f, a, {});
}

void gemma_like(const ConfigFields& f, Architecture& a) {
  f.integer({"head_dim"});
  read_dimensions(f, a, -1);
  read_intermediate(f, a);
  read_context(f, a);
  a.norm = NormKind::rms_plus_one;
  a.norm_eps = f.real({"rms_norm_eps"}, 1e-6);
  a.activation = read_activation(f, {"hidden_activation"}, "gelu_pytorch_tanh");
  f.without_effect({"hidden_act"});  // the first Gemma's key, kept beside
  a.qkv_bias = a.o_bias = f.boolean("attention_bias", false);
  a.embedding_scale = std::sqrt(static_cast<double>(a.hidden_size));
  a.attention_scale = 1 / std::sqrt(f.real({"query_pre_attn_scalar"}, 256.0));
  read_tied(f, a, true);
  if (f.boolean("use_bidirectional_attention", false)) f.fail("use_bidirectional_attention", "false (a causal model)");
}

// A null soft cap is "none"; a missing one is the family's default.
double read_softcap(const ConfigFields& f, const std::string& key, double missing) {
  return f.real({key}, f.json().contains(key) ? 0 : missing);
}

void configure_gemma2(const ConfigFields& f, Architecture& a) {
  gemma_like(f, a);
  a.attention_softcap = read_softcap(f, "attn_logit_softcapping", 50);
  a.logit_softcap = read_softcap(f, "final_logit_softcapping", 30);
  set_layer_windows(f, a, f.integer({"sliding_window"}, f.json().contains("sliding_window") ? 0 : 4096),
                    [](int64_t i) { return (i + 1) % 2 != 0; });
  read_rope(f, a, whole_rotation());
}

void configure_gemma3(const ConfigFields& f, Architecture& a) {
  gemma_like(f, a);
  a.head_norm = HeadNorm::rms;
  a.logit_softcap = read_softcap(f, "final_logit_softcapping", 0);
  const int64_t pattern = f.integer({"sliding_window_pattern", "_sliding_window_pattern"}, 6);
  set_layer_windows(f, a, f.integer({"sliding_window"}, f.json().contains("sliding_window") ? 0 : 4096),
                    [&](int64_t i) { return (i + 1) % pattern != 0; });
  read_rope_per_layer_type(f, a, 1e6, 1e4);
  for (LayerSpec& layer : a.layers) layer.rope = layer.window > 0 ? 1 : 0;
}

void configure_opt(const ConfigFields& f, Architecture& a) {
  read_plain_dimensions(f, a);
  a.intermediate_size = f.integer({"ffn_dim"}, {}, 1, kMaxWidth);
  read_context(f, a);
  a.embedding_size = f.integer({"word_embed_proj_dim"}, a.hidden_size, 1, kMaxWidth);
  a.norm = NormKind::layer;
  a.norm_eps = 1e-5;
  a.norm_affine = f.boolean("layer_norm_elementwise_affine", true);
  a.norm_after = !f.boolean("do_layer_norm_before", true);
  const bool removed = f.boolean("_remove_final_layer_norm", false);
  a.final_norm = !a.norm_after && !removed;
  a.position = PositionKind::learned;
  a.position_offset = 2;
  a.qkv_bias = a.o_bias = a.mlp_bias = f.boolean("enable_bias", true);
  a.activation = read_activation(f, {"activation_function"}, "relu");
  a.gated = false;
  read_tied(f, a, true);
}

void configure_starcoder2(const ConfigFields& f, Architecture& a) {
  read_dimensions(f, a, -1);
  read_intermediate(f, a);
  read_context(f, a);
  a.norm = NormKind::layer;
  a.norm_eps = f.real({"norm_epsilon"}, 1e-5);
  a.qkv_bias = a.o_bias = a.mlp_bias = f.boolean("use_bias", true);
  a.activation = read_activation(f, {"hidden_act"}, "gelu_pytorch_tanh");
  a.gated = false;
  read_tied(f, a, true);
  set_window(f, a, {});
  read_rope(f, a, whole_rotation());
}

void configure_stablelm(const ConfigFields& f, Architecture& a) {
  read_dimensions(f, a, 32);
  if (a.head_dim * a.heads != a.hidden_size) f.fail("head_dim", fmt::format("{}, hidden_size / num_attention_heads", a.hidden_size / a.heads));
  read_intermediate(f, a);
  read_context(f, a);
  a.norm = NormKind::layer;
  a.norm_eps = f.real({"layer_norm_eps"}, 1e-5);
  a.qkv_bias = f.boolean("use_qkv_bias", false);
  a.activation = read_activation(f, {"hidden_act"}, "silu");
  a.parallel = f.boolean("use_parallel_residual", false);
  if (a.parallel) a.names.mlp_norm = "";
  if (f.boolean("qk_layernorm", false)) {
    a.head_norm = HeadNorm::layer;
    a.head_norm_per_head = true;
  }
  read_tied(f, a, false);
  RopeDefaults rope;
  rope.fraction = 0.25;
  read_rope(f, a, rope);
}

void configure_internlm2(const ConfigFields& f, Architecture& a) {
  llama_like(f, a, 0, whole_rotation());
  a.qkv = QkvLayout::grouped;
  a.qkv_bias = a.o_bias = f.boolean("bias", false);
}

// transformers' classes of a whole leave out what the text model's own class does to its logits; other engines do it.
void refuse_scaled_logits(const ConfigFields& text, const Architecture& a, const std::string& whole) {
  const std::string found = a.logit_softcap > 0  ? fmt::format("a soft cap of {:.6g}", a.logit_softcap)
                            : a.logit_scale != 1 ? fmt::format("a scale of {:.6g}", a.logit_scale)
                            : a.normalise_head   ? "a head whose rows are normalised"
                                                 : "";
  if (!found.empty())
    throw InputError(fmt::format("{}: the logits of the text model have {}, which the head of a {} leaves out, expected the text model alone or one without it",
                                 text.origin(), found, whole));
}

}  // namespace

const std::vector<Family>& families() {
  static const std::vector<Family> table = [] {
    std::vector<Family> rows = fused_families();
    for (const auto& more : {dense_families(), layer_norm_families(), multimodal_families(), expert_families(), latent_families(), hybrid_families(), stream_families()})
      rows.insert(rows.end(), more.begin(), more.end());
    rows.insert(rows.end(), {
        {"llama", "Llama 1/2/3.x and SmolLM", {"llama", "smollm"}, llama_gguf("llama"), llama_names(), configure_llama},
        {"mistral", "Mistral and Ministral", {"mistral", "ministral"}, llama_gguf("mistral"), llama_names(), configure_mistral},
        {"mixtral", "Mixtral", {"mixtral"}, llama_gguf("mixtral"), mixtral_names(), configure_mixtral, {{"expert_weights_norm", {true}}}},
        {"granite", "Granite", {"granite"}, llama_gguf("granite"), llama_names(), configure_granite},
        // Chunks of the long-context variants are longer than any window that is run here.
        {"qwen2", "Qwen2", {"qwen2"}, qwen_gguf("qwen2"), llama_names(), configure_qwen2, {{"dual_chunk_attention_config", {}}}},
        {"qwen2_moe", "Qwen2-MoE", {"qwen2_moe"}, qwen_moe_gguf("qwen2moe"), with_qwen_shared_expert(llama_names()), configure_qwen2_moe, {{"expert_weights_norm", {false}}}},
        {"qwen3", "Qwen3", {"qwen3"}, qwen_gguf("qwen3"), qwen3_names(), configure_qwen3},
        {"qwen3_moe", "Qwen3-MoE", {"qwen3_moe"}, qwen_moe_gguf("qwen3moe"), with_qwen_experts(qwen3_names()), configure_qwen3_moe, {{"expert_weights_norm", {true}}}},
        {"phi3", "Phi-3", {"phi3"}, phi3_gguf(), phi3_names(), configure_phi3, {{"full_attn_mod", {1}}, {"interpolate_factor", {1}}}},
        {"gemma2", "Gemma 2", {"gemma2"}, gemma_gguf("gemma2"), gemma2_names(), configure_gemma2, {{"sliding_window_size", {}}}},
        {"gemma3", "Gemma 3", {"gemma3_text", "gemma3"}, gemma_gguf("gemma3"), gemma3_names(), configure_gemma3},
        {"opt", "OPT", {"opt"}, {}, opt_names(), configure_opt, {{"learned_embeddings", {true}}, {"scale_embeddings", {false}}}},
        // What the first StarCoder's configuration said and this family fixes, beside hidden_act and norm_epsilon.
        {"starcoder2", "StarCoder2", {"starcoder2"}, starcoder2_gguf(), starcoder2_names(), configure_starcoder2,
         {{"activation_function", {}}, {"layer_norm_epsilon", {}}, {"mlp_type", {"default"}}, {"norm_type", {"layer_norm"}}, {"scale_attn_weights", {true}},
          {"attention_softmax_in_fp32", {}}, {"scale_attention_softmax_in_fp32", {}}}},
        {"stablelm", "StableLM", {"stablelm"}, stablelm_gguf(), stablelm_names(), configure_stablelm,
         {{"norm_eps", {1e-5}}, {"rope_pct", {0.25}}, {"rotary_scaling_factor", {1}}}},
        {"internlm2", "InternLM2", {"internlm2"}, internlm2_gguf(), internlm2_names(), configure_internlm2},
    });
    return rows;
  }();
  return table;
}

const Family* family_of_model_type(const std::string& model_type) {
  for (const Family& family : families())
    for (const std::string& type : family.model_types)
      if (type == model_type) return &family;
  return nullptr;
}

const Family* family_of_gguf(const std::string& architecture) {
  for (const Family& family : families())
    if (std::find(family.gguf.names.begin(), family.gguf.names.end(), architecture) != family.gguf.names.end()) return &family;
  return nullptr;
}

std::vector<FamilyInfo> known_families() {
  std::vector<FamilyInfo> known;
  for (const Family& family : families()) known.push_back({family.name, family.title, family.model_types, family.gguf.names});
  return known;
}

std::string known_model_types() {
  std::vector<std::string> names;
  for (const Family& family : families()) names.insert(names.end(), family.model_types.begin(), family.model_types.end());
  std::sort(names.begin(), names.end());
  return fmt::format("{}", fmt::join(names, ", "));
}

Architecture architecture_from_config(ConfigFields fields) {
  refuse_pipeline_part(fields);
  std::string type = fields.text({"model_type"});
  const ConfigFields outer = fields;
  const auto text = text_part(outer);
  if (text) fields = text->fields, type = text->model_type;
  const Family* family = family_of_model_type(type);
  if (!family) {
    refuse_foreign_layers(fields, outer, type);
    throw InputError(fmt::format("{}: model_type \"{}\" is not a known architecture, expected one of {}", fields.origin(), type, known_model_types()));
  }
  Architecture a;
  a.family = family->name;
  a.names = family->names;
  family->configure(fields, a);
  // Also where all see everything and nobody asks.
  if (const auto types = fields.json().find("layer_types"); types != fields.json().end() && types->is_array() && !types->empty() && a.stored_blocks.empty() &&
      types->size() != static_cast<size_t>(a.blocks))
    fields.fail("layer_types", fmt::format("one entry for each of the {} blocks", a.blocks));
  if (text && text->plain_head) refuse_scaled_logits(fields, a, outer.text({"model_type"}));
  std::vector<HarmlessKey> harmless = family->harmless;
  if (text) harmless.insert(harmless.end(), harmless_in_text_part().begin(), harmless_in_text_part().end());
  require_understood(fields, family->name, harmless);
  if (text) require_understood_wrapper(outer, fields, family->name);
  build_layers(a);
  return a;
}

}  // namespace qb
