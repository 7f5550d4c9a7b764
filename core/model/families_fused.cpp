#include <fmt/format.h>

#include "core/model/family_fields.h"

// Facts as in families.cpp.
namespace qb {
namespace {

NameTable bloom_names() {
  NameTable n;
  n.embedding = "transformer.word_embeddings", n.embedding_norm = "transformer.word_embeddings_layernorm";
  n.final_norm = "transformer.ln_f", n.head = "lm_head", n.block = "transformer.h.";
  n.input_norm = "input_layernorm", n.mlp_norm = "post_attention_layernorm";
  n.qkv = "self_attention.query_key_value", n.o = "self_attention.dense";
  n.up = "mlp.dense_h_to_4h", n.down = "mlp.dense_4h_to_h";
  return n;
}

NameTable falcon_names() {
  NameTable n = bloom_names();
  n.embedding_norm = "";
  return n;
}

NameTable neox_names() {
  NameTable n;
  n.embedding = "gpt_neox.embed_in", n.final_norm = "gpt_neox.final_layer_norm", n.head = "embed_out", n.block = "gpt_neox.layers.";
  n.input_norm = "input_layernorm", n.mlp_norm = "post_attention_layernorm";
  n.qkv = "attention.query_key_value", n.o = "attention.dense";
  n.up = "mlp.dense_h_to_4h", n.down = "mlp.dense_4h_to_h";
  return n;
}

void configure_bloom(const ConfigFields& f, Architecture& a) {
  read_plain_dimensions(f, a, {{"n_embed"}, {"n_layer"}, {"n_head"}});
  a.intermediate_size = 4 * a.hidden_size;
  a.norm = NormKind::layer;
  a.norm_eps = f.real({"layer_norm_epsilon"}, 1e-5);
  a.residual_after_norm = f.boolean("apply_residual_connection_post_layernorm", false);
  a.position = PositionKind::alibi;
  a.qkv = QkvLayout::grouped;
  a.qkv_bias = a.o_bias = a.mlp_bias = true;
  a.activation = Activation::gelu_tanh;
  a.gated = false;
  read_tied(f, a, true);
}

void configure_falcon(const ConfigFields& f, Architecture& a) {
  read_plain_dimensions(f, a, {{"n_embed"}, {}, {}});
  const bool grouped = f.boolean("new_decoder_architecture", false);
  const bool multi_query = f.boolean("multi_query", true);
  a.parallel = f.boolean("parallel_attn", true);
  if (grouped && !a.parallel) f.fail("parallel_attn", "true, as new_decoder_architecture says");
  if (grouped) {
    a.kv_heads = f.integer({"num_kv_heads"}, a.heads, 1, kMaxHeads);
    if (a.heads % a.kv_heads != 0) f.fail("num_kv_heads", fmt::format("a divisor of the {} attention heads", a.heads));
  } else {
    a.kv_heads = multi_query ? 1 : a.heads;
    if (multi_query) f.without_effect({"num_kv_heads"});
    if (f.integer({"num_kv_heads"}, a.kv_heads, 1, kMaxHeads) != a.kv_heads && !multi_query) f.fail("num_kv_heads", fmt::format("the {} attention heads", a.heads));
  }
  a.intermediate_size = f.integer({"ffn_hidden_size"}, 4 * a.hidden_size, 1, kMaxWidth);
  a.norm = NormKind::layer;
  a.norm_eps = f.real({"layer_norm_epsilon"}, 1e-5);
  a.qkv = QkvLayout::grouped;
  a.qkv_bias = a.o_bias = a.mlp_bias = f.boolean("bias", false);
  a.activation = read_activation(f, {"activation"}, "gelu");
  a.gated = false;
  read_tied(f, a, true);
  // Falcon-40B norms the inputs of attention and MLP separately, Falcon-7B and 11B use one norm for both.
  const int64_t norms = f.integer({"num_ln_in_parallel_attn"}, grouped ? 2 : 1, 1, 2);
  if (a.parallel && grouped && norms == 2) {
    a.names.input_norm = "ln_attn", a.names.mlp_norm = "ln_mlp";
  } else if (a.parallel) {
    a.names.mlp_norm = "";
  }
  if (f.boolean("alibi", false)) {
    a.position = PositionKind::alibi_scaled;
    f.without_effect({"max_position_embeddings", "rope_parameters", "rope_scaling", "rope_theta"});
  } else {
    a.context_length = f.integer({"max_position_embeddings"}, 2048);
    read_rope(f, a, whole_rotation());
  }
}

void configure_neox(const ConfigFields& f, Architecture& a) {
  read_plain_dimensions(f, a);
  read_intermediate(f, a);
  read_context(f, a);
  a.norm = NormKind::layer;
  a.norm_eps = f.real({"layer_norm_eps"}, 1e-5);
  a.parallel = f.boolean("use_parallel_residual", true);
  a.qkv = QkvLayout::grouped;
  a.qkv_bias = a.o_bias = f.boolean("attention_bias", true);
  a.mlp_bias = true;
  a.activation = read_activation(f, {"hidden_act"}, "gelu");
  a.gated = false;
  read_tied(f, a, false);
  RopeDefaults rope;
  rope.fraction = 0.25;
  rope.theta_keys = {"rotary_emb_base"};
  rope.fraction_keys = {"rotary_pct"};
  read_rope(f, a, rope);
}

}  // namespace

std::vector<Family> fused_families() {
  return {
      // Megatron's switches between equal computations, at the values with which BLOOM was published.
      {"bloom", {"bloom"}, {"bloom"}, bloom_names(), configure_bloom,
       {{"attention_softmax_in_fp32", {}}, {"bias_dropout_fusion", {}}, {"masked_softmax_fusion", {}}, {"slow_but_exact", {false}}, {"offset_alibi", {100}},
        {"skip_bias_add", {true}}, {"skip_bias_add_qkv", {false}}, {"seq_length", {}}, {"attention.max_alibi_bias", {8}}}},
      {"falcon", {"falcon"}, {"falcon"}, falcon_names(), configure_falcon,
       {{"apply_residual_connection_post_layernorm", {false}}, {"ff_factor", {4}}}},
      {"gpt_neox", {"gpt_neox"}, {"gptneox"}, neox_names(), configure_neox},
  };
}

}  // namespace qb
