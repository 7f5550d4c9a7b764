#include <fmt/format.h>

#include <cmath>

#include "core/model/family_fields.h"
#include "core/model/gguf_describer.h"
#include "core/model/gguf_translator.h"

// Decoders with layer norms. Facts as in families.cpp.
namespace qb {
namespace {

// --- GPT-2: learned positions, matrices stored [in, out]

NameTable gpt2_names() {
  NameTable n;
  n.embedding = "transformer.wte", n.positions = "transformer.wpe", n.final_norm = "transformer.ln_f", n.head = "lm_head", n.block = "transformer.h.";
  n.input_norm = "ln_1", n.mlp_norm = "ln_2";
  n.qkv = "attn.c_attn", n.o = "attn.c_proj";
  n.up = "mlp.c_fc", n.down = "mlp.c_proj";
  return n;
}

void configure_gpt2(const ConfigFields& f, Architecture& a) {
  read_plain_dimensions(f, a, {{"n_embd"}, {"n_layer"}, {"n_head"}});
  a.intermediate_size = f.integer({"n_inner"}, 4 * a.hidden_size, 1, kMaxWidth);
  a.context_length = f.integer({"n_positions", "max_position_embeddings"}, {}, 1, int64_t{1} << 31);
  a.norm = NormKind::layer;
  a.norm_eps = f.real({"layer_norm_epsilon"}, 1e-5);
  a.position = PositionKind::learned;
  a.qkv = QkvLayout::concatenated;
  a.qkv_bias = a.o_bias = a.mlp_bias = true;
  a.transposed_linears = true;
  a.activation = read_activation(f, {"activation_function"}, "gelu_new");
  a.gated = false;
  if (!f.boolean("scale_attn_weights", true)) a.attention_scale = 1;
  if (f.boolean("scale_attn_by_inverse_layer_idx", false))
    for (int64_t i = 0; i < a.blocks; ++i) a.layers[i].attention_scale = a.attention_scale / static_cast<double>(i + 1);
  read_tied(f, a, true);
}

std::string translate_gpt2(GgufTranslator& t) {
  t.real("attention.layer_norm_epsilon", "layer_norm_epsilon");
  t.forget("intermediate_size"), t.forget("max_position_embeddings");
  t.integer("feed_forward_length", "n_inner");
  t.integer("context_length", "n_positions");
  return "";
}

// --- GPT-J: pairs side by side, one norm for both branches

NameTable gptj_names() {
  NameTable n = gpt2_names();
  n.positions = n.mlp_norm = n.qkv = "";
  n.q = "attn.q_proj", n.k = "attn.k_proj", n.v = "attn.v_proj", n.o = "attn.out_proj";
  n.up = "mlp.fc_in", n.down = "mlp.fc_out";
  return n;
}

void configure_gptj(const ConfigFields& f, Architecture& a) {
  read_plain_dimensions(f, a, {{"n_embd"}, {"n_layer"}, {"n_head"}});
  a.intermediate_size = f.integer({"n_inner"}, 4 * a.hidden_size, 1, kMaxWidth);
  a.context_length = f.integer({"n_positions", "max_position_embeddings"}, {}, 1, int64_t{1} << 31);
  a.norm = NormKind::layer;
  a.norm_eps = f.real({"layer_norm_epsilon"}, 1e-5);
  a.parallel = true;
  a.mlp_bias = a.head_bias = true;
  a.activation = read_activation(f, {"activation_function"}, "gelu_new");
  a.gated = false;
  read_tied(f, a, false);
  RopeSpec rope;
  rope.dim = f.integer({"rotary_dim"}, {}, 2, a.head_dim);
  if (rope.dim % 2 != 0) f.fail("rotary_dim", "an even number");
  a.ropes = {rope};
  a.rope_interleaved = true;
}

// --- Phi 1, 1.5 and 2

NameTable phi_names() {
  NameTable n = llama_names();
  n.mlp_norm = n.gate = "";
  n.final_norm = "model.final_layernorm";
  n.o = "self_attn.dense", n.up = "mlp.fc1", n.down = "mlp.fc2";
  n.q_norm = "self_attn.q_layernorm", n.k_norm = "self_attn.k_layernorm";
  return n;
}

void configure_phi(const ConfigFields& f, Architecture& a) {
  read_dimensions(f, a, 32);
  read_intermediate(f, a);
  read_context(f, a);
  a.norm = NormKind::layer;
  a.norm_eps = f.real({"layer_norm_eps"}, 1e-5);
  a.parallel = true;
  a.qkv_bias = a.o_bias = a.mlp_bias = a.head_bias = true;
  a.activation = read_activation(f, {"hidden_act"}, "gelu_new");
  a.gated = false;
  if (f.boolean("qk_layernorm", false)) {
    a.head_norm = HeadNorm::layer;
    a.head_norm_bias = true;
  }
  read_tied(f, a, false);
  RopeDefaults rope;
  rope.fraction = 0.5;
  read_rope(f, a, rope);
}

std::string translate_phi2(GgufTranslator& t) {
  t.real("attention.layer_norm_epsilon", "layer_norm_eps");
  // The key says 4 · hidden_size whatever the model.
  if (const TensorInfo* up = t.file().find("blk.0.ffn_up.weight"); up && up->shape.size() == 2) t.set("intermediate_size", up->shape[0]);
  return "";
}

// --- OLMo: norms without weights

void configure_olmo(const ConfigFields& f, Architecture& a) {
  read_dimensions(f, a, 32);
  read_intermediate(f, a);
  read_context(f, a);
  a.activation = read_activation(f, {"hidden_act"}, "silu");
  read_tied(f, a, false);
  read_rope(f, a, whole_rotation());
  a.norm = NormKind::layer;
  a.norm_affine = false;
  a.norm_eps = 1e-5;
  a.qkv_bias = a.o_bias = f.boolean("attention_bias", false);
  if (f.has("clip_qkv")) a.qkv_clip = f.real({"clip_qkv"});
}

std::string translate_olmo(GgufTranslator& t) {
  t.set("attention_bias", t.qkv_bias());
  t.must_be_real("attention.layer_norm_epsilon", 1e-5);
  t.real("attention.clamp_kqv", "clip_qkv");
  if (t.real_of("attention.clamp_kqv").value_or(0) == 0) t.set("clip_qkv", nullptr);
  return "";
}

void describe_olmo(GgufDescriber& d) {
  if (d.a.qkv_clip > 0) d.real("attention.clamp_kqv", d.a.qkv_clip);
}

// --- Cohere: layer norms without bias, pairs side by side, scaled logits; Cohere 2 without positions where layers see everything

NameTable cohere_names() {
  NameTable n = qwen3_names();
  n.mlp_norm = "";
  return n;
}

void cohere_like(const ConfigFields& f, Architecture& a, double theta) {
  read_dimensions(f, a, 64);
  read_intermediate(f, a);
  read_context(f, a);
  a.norm = NormKind::layer;
  a.norm_bias = false;
  a.norm_eps = f.real({"layer_norm_eps"}, 1e-5);
  a.parallel = true;
  a.qkv_bias = a.o_bias = f.boolean("attention_bias", false);
  a.activation = read_activation(f, {"hidden_act"}, "silu");
  a.logit_scale = f.real({"logit_scale"}, 0.0625);
  read_tied(f, a, true);
  a.rope_interleaved = true;
  read_rope(f, a, whole_rotation(theta));
}

void configure_cohere(const ConfigFields& f, Architecture& a) {
  cohere_like(f, a, 5e5);
  if (f.boolean("use_qk_norm", false)) {
    a.head_norm = HeadNorm::layer;
    a.head_norm_stacked = true;
  }
}

void configure_cohere2(const ConfigFields& f, Architecture& a) {
  cohere_like(f, a, 1e4);
  if (a.head_dim * a.heads != a.hidden_size) f.fail("head_dim", fmt::format("{}, hidden_size / num_attention_heads", a.hidden_size / a.heads));
  const int64_t pattern = f.integer({"sliding_window_pattern"}, 4);
  set_layer_windows(f, a, f.integer({"sliding_window"}, f.json().contains("sliding_window") ? 0 : 4096), [&](int64_t i) { return (i + 1) % pattern != 0; });
  for (LayerSpec& layer : a.layers) layer.rope = layer.window > 0 ? 0 : -1;
}

std::string translate_cohere(GgufTranslator& t) {
  t.real("attention.layer_norm_epsilon", "layer_norm_eps");
  t.real("logit_scale", "logit_scale");
  t.set("attention_bias", t.qkv_bias());
  t.set("use_qk_norm", t.has_tensor("blk.0.attn_q_norm.weight"));
  return "";
}

std::string translate_cohere2(GgufTranslator& t) {
  t.real("attention.layer_norm_epsilon", "layer_norm_eps");
  t.real("logit_scale", "logit_scale");
  t.set("attention_bias", t.qkv_bias());
  t.window_pattern(4);
  return "";
}

void describe_plain_rotation(GgufDescriber& d) {
  if (d.a.ropes.front().kind == RopeSpec::Kind::plain) d.text("rope.scaling.type", "none");
}

void describe_cohere(GgufDescriber& d) {
  d.sliding_window();
  d.real("logit_scale", d.a.logit_scale);
  describe_plain_rotation(d);
}

// --- Nemotron: squared ReLU, norms of 1 + weight with a bias

void configure_nemotron(const ConfigFields& f, Architecture& a) {
  read_dimensions(f, a, 0);
  read_intermediate(f, a);
  read_context(f, a);
  a.norm = NormKind::layer_plus_one;
  a.norm_eps = f.real({"norm_eps"}, 1e-5);
  a.qkv_bias = a.o_bias = f.boolean("attention_bias", false);
  a.mlp_bias = f.boolean("mlp_bias", false);
  a.activation = read_activation(f, {"hidden_act"}, "relu2");
  a.gated = false;
  read_tied(f, a, false);
  RopeDefaults rope;
  rope.fraction = 0.5;
  read_rope(f, a, rope);
  // The first name of partial_rotary_factor, which does not count any more.
  if (f.has("rope_percent") && static_cast<int64_t>(f.real({"rope_percent"}, {}, 0, 1) * static_cast<double>(a.head_dim)) != a.ropes.front().dim)
    f.fail("rope_percent", "the same as partial_rotary_factor, which counts (0.5 where it is absent)");
}

std::string translate_nemotron(GgufTranslator& t) {
  t.real("attention.layer_norm_epsilon", "norm_eps");
  t.set("attention_bias", t.qkv_bias());
  t.set("mlp_bias", t.mlp_bias());
  return "";
}

NameTable nemotron_names() {
  NameTable n = llama_names();
  n.gate = "";
  return n;
}

// What Cohere 2's published configurations say and its code fixes.
const std::vector<HarmlessKey>& of_cohere() {
  static const std::vector<HarmlessKey> keys = {
      {"use_gated_activation", {true}}, {"use_parallel_block", {true}}, {"use_parallel_embedding", {}}, {"use_embedding_sharing", {true}}, {"layer_switch", {4}},
      {"position_embedding_type", {"rope_gptj"}}, {"rotary_pct", {1}}, {"order_of_interleaved_layers", {"local_attn_first"}}};
  return keys;
}

}  // namespace

std::vector<Family> layer_norm_families() {
  const std::vector<HarmlessKey> of_gpt = {{"summary_*", {}}, {"reorder_and_upcast_attn", {}}, {"n_ctx", {}}, {"scale_attn_weights", {true}}, {"rotary", {true}}};
  return {
      {"gpt2", "GPT-2", {"gpt2"}, {.names = {"gpt2"}, .equal_heads = true, .kv_heads = "", .translate = translate_gpt2}, gpt2_names(), configure_gpt2, of_gpt},
      {"gptj", "GPT-J", {"gptj"}, {}, gptj_names(), configure_gptj, of_gpt},
      {"phi", "Phi 1/2", {"phi"}, {.names = {"phi2"}, .partial_rotation = true, .translate = translate_phi2}, phi_names(), configure_phi},
      {"olmo", "OLMo", {"olmo"}, {.names = {"olmo"}, .permuted = true, .translate = translate_olmo, .describe = describe_olmo}, llama_names(), configure_olmo},
      {"cohere", "Cohere", {"cohere"}, {.names = {"command-r"}, .translate = translate_cohere, .describe = describe_cohere}, cohere_names(), configure_cohere, of_cohere()},
      {"cohere2", "Cohere 2", {"cohere2"}, {.names = {"cohere2"}, .translate = translate_cohere2, .describe = describe_cohere}, cohere_names(), configure_cohere2, of_cohere()},
      {"nemotron", "Nemotron", {"nemotron"}, {.names = {"nemotron"}, .partial_rotation = true, .translate = translate_nemotron, .describe = describe_plain_rotation}, nemotron_names(), configure_nemotron},
  };
}

}  // namespace qb
