// What GGUF files of each family say beside the keys that all have in common; sources as in gguf_config.cpp.
#include "core/model/gguf_families.h"

namespace qb {
namespace {

std::string translate_llama(GgufTranslator& t) {
  t.set("attention_bias", t.qkv_bias());
  t.set("attention_output_bias", t.o_bias());
  t.set("mlp_bias", t.mlp_bias());
  t.integer("expert_count", "num_local_experts");
  t.integer("expert_used_count", "num_experts_per_tok");
  t.set("sliding_window", nullptr);
  // llama.cpp calls Mistral and Mixtral "llama"; only the experts tell.
  return t.integer_of("expert_count").value_or(0) > 0 ? "mixtral" : "";
}

void describe_llama(GgufDescriber& d) { d.experts(); }

std::string translate_granite(GgufTranslator& t) {
  translate_llama(t);
  t.real("embedding_scale", "embedding_multiplier");
  t.real("residual_scale", "residual_multiplier");
  t.real("attention.scale", "attention_multiplier");
  t.real("logit_scale", "logits_scaling");
  return "";
}

void describe_granite(GgufDescriber& d) {
  d.scales();
  d.real("attention.scale", d.a.attention_scale);
}

std::string translate_qwen(GgufTranslator& t) {
  t.set("attention_bias", t.qkv_bias());
  return "";
}

std::string translate_qwen_moe(GgufTranslator& t) {
  t.set("attention_bias", t.qkv_bias());
  t.set("qkv_bias", t.qkv_bias());
  t.integer("expert_count", "num_experts");
  t.integer("expert_used_count", "num_experts_per_tok");
  t.integer("expert_feed_forward_length", "moe_intermediate_size");
  t.integer("expert_shared_feed_forward_length", "shared_expert_intermediate_size");
  t.set("norm_topk_prob", t.arch() == "qwen3moe");
  if (!t.has("intermediate_size")) t.integer("expert_feed_forward_length", "intermediate_size");
  return "";
}

void describe_qwen_moe(GgufDescriber& d) {
  d.experts();
  d.expert_width();
  if (d.a.shared_intermediate_size > 0) d.integer("expert_shared_feed_forward_length", d.a.shared_intermediate_size);
}

std::string translate_phi3(GgufTranslator& t) {
  t.integer("attention.sliding_window", "sliding_window");
  if (auto window = t.integer_of("attention.sliding_window"); !window || *window == 0) t.set("sliding_window", nullptr);
  t.integer("rope.scaling.original_context_length", "original_max_position_embeddings");
  if (!t.has("original_max_position_embeddings")) t.set("original_max_position_embeddings", t.integer_of("context_length").value_or(0));
  return "";
}

void describe_phi3(GgufDescriber& d) {
  d.sliding_window();
  const RopeSpec& rope = d.a.ropes.front();
  d.integer("rope.scaling.original_context_length", rope.kind == RopeSpec::Kind::longrope ? rope.original_context : d.a.context_length);
}

std::string translate_gemma(GgufTranslator& t) {
  const bool third = t.arch() == "gemma3";
  if (third && t.integer_of("attention.sliding_window").value_or(0) == 0) {
    t.see_everything();
  } else {
    t.window_pattern(third ? 6 : 2);
  }
  t.set("attn_logit_softcapping", nullptr);
  t.set("final_logit_softcapping", nullptr);
  t.real("attn_logit_softcapping", "attn_logit_softcapping");
  t.real("final_logit_softcapping", "final_logit_softcapping");
  // Not stored: head_dim, except in the two 27B models, whose scale is hidden_size / heads.
  const bool largest = t.integer_of("block_count") == (third ? 62 : 46);
  const int64_t equal = t.heads() > 0 ? t.hidden() / t.heads() : 0, head_dim = t.integer_of("attention.key_length").value_or(equal);
  t.set("query_pre_attn_scalar", static_cast<double>(largest && equal > 0 ? equal : head_dim));
  if (third) t.real("rope.freq_base_swa", "rope_local_base_freq");
  return "";
}

void describe_gemma(GgufDescriber& d) {
  d.sliding_window();
  if (d.a.attention_softcap > 0) d.real("attn_logit_softcapping", d.a.attention_softcap);
  if (d.a.logit_softcap > 0) d.real("final_logit_softcapping", d.a.logit_softcap);
  if (d.a.ropes.size() > 1) d.real("rope.freq_base_swa", d.a.ropes[1].theta);
}

std::string translate_bloom(GgufTranslator& t) {
  t.forget("intermediate_size");
  t.must_be("feed_forward_length", 4 * t.hidden());
  t.forget("max_position_embeddings");  // ALiBi has none
  t.real("attention.layer_norm_epsilon", "layer_norm_epsilon");
  return "";
}

std::string translate_falcon(GgufTranslator& t) {
  t.real("attention.layer_norm_epsilon", "layer_norm_epsilon");
  t.forget("intermediate_size");
  t.integer("feed_forward_length", "ffn_hidden_size");
  const bool two_norms = t.has_tensor("blk.0.attn_norm_2.weight");
  const int64_t kv = t.integer_of("attention.head_count_kv").value_or(1);
  t.set("new_decoder_architecture", two_norms || (kv != 1 && kv != t.heads()));
  t.set("num_ln_in_parallel_attn", two_norms ? 2 : 1);
  t.set("multi_query", kv == 1);
  t.set("parallel_attn", true);
  t.set("bias", t.qkv_bias());
  return "";
}

std::string translate_neox(GgufTranslator& t) {
  t.real("attention.layer_norm_epsilon", "layer_norm_eps");
  t.boolean("use_parallel_residual", "use_parallel_residual");
  t.set("attention_bias", t.qkv_bias());
  return "";
}

void describe_parallel(GgufDescriber& d) { d.boolean("use_parallel_residual", d.a.parallel); }

std::string translate_starcoder2(GgufTranslator& t) {
  t.real("attention.layer_norm_epsilon", "norm_epsilon");
  t.integer("attention.sliding_window", "sliding_window");
  t.set("use_bias", t.qkv_bias());
  return "";
}

void describe_starcoder2(GgufDescriber& d) { d.sliding_window(); }

std::string translate_stablelm(GgufTranslator& t) {
  t.real("attention.layer_norm_epsilon", "layer_norm_eps");
  t.boolean("use_parallel_residual", "use_parallel_residual");
  if (!t.has_tensor("blk.0.ffn_norm.weight")) t.set("use_parallel_residual", true);
  t.set("use_qkv_bias", t.qkv_bias());
  t.set("qk_layernorm", t.has_tensor("blk.0.attn_q_norm.weight"));
  return "";
}

std::string translate_internlm2(GgufTranslator& t) {
  t.set("bias", t.qkv_bias());
  return "";
}

}  // namespace

GgufForm llama_gguf(const std::string& name) { return {.names = {name}, .permuted = true, .translate = name == "granite" ? translate_granite : translate_llama, .describe = name == "granite" ? describe_granite : describe_llama}; }
GgufForm qwen_gguf(const std::string& name) { return {.names = {name}, .translate = translate_qwen}; }
GgufForm qwen_moe_gguf(const std::string& name) { return {.names = {name}, .translate = translate_qwen_moe, .describe = describe_qwen_moe}; }
GgufForm phi3_gguf() { return {.names = {"phi3"}, .partial_rotation = true, .translate = translate_phi3, .describe = describe_phi3}; }
GgufForm gemma_gguf(const std::string& name) { return {.names = {name}, .translate = translate_gemma, .describe = describe_gemma}; }
GgufForm bloom_gguf() { return {.names = {"bloom"}, .equal_heads = true, .kv_heads = "", .translate = translate_bloom}; }
GgufForm falcon_gguf() { return {.names = {"falcon"}, .equal_heads = true, .kv_heads = "num_kv_heads", .translate = translate_falcon}; }
GgufForm neox_gguf() { return {.names = {"gptneox"}, .equal_heads = true, .partial_rotation = true, .theta = "rotary_emb_base", .fraction = "rotary_pct", .kv_heads = "", .translate = translate_neox, .describe = describe_parallel}; }
GgufForm starcoder2_gguf() { return {.names = {"starcoder2"}, .translate = translate_starcoder2, .describe = describe_starcoder2}; }
GgufForm stablelm_gguf() { return {.names = {"stablelm"}, .equal_heads = true, .partial_rotation = true, .translate = translate_stablelm, .describe = describe_parallel}; }
GgufForm internlm2_gguf() { return {.names = {"internlm2"}, .permuted = true, .translate = translate_internlm2, .split_qkv = true}; }

}  // namespace qb
