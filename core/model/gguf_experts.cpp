// GGUF's side of the families with experts and of those with latent attention; sources as in gguf_config.cpp.
#include "core/model/gguf_families.h"

namespace qb {
namespace {

void translate_biases(GgufTranslator& t) { t.set("attention_bias", t.qkv_bias()); }

// Numbers of experts under config.json's names.
void translate_counts(GgufTranslator& t, const char* count, const char* used) {
  t.integer("expert_count", count);
  t.integer("expert_used_count", used);
}

// The width of experts, where it is a key of its own and config.json says it as intermediate_size.
void translate_width(GgufTranslator& t) {
  t.forget("intermediate_size");
  t.must_be("feed_forward_length", 0);
  t.integer("expert_feed_forward_length", "intermediate_size");
}

// What read_deepseek_experts reads.
void translate_deepseek_experts(GgufTranslator& t) {
  translate_counts(t, "n_routed_experts", "num_experts_per_tok");
  t.integer("expert_feed_forward_length", "moe_intermediate_size");
  t.integer("expert_shared_count", "n_shared_experts");
  t.must_be("expert_shared_feed_forward_length", 0);
  t.real("expert_weights_scale", "routed_scaling_factor");
  t.set("norm_topk_prob", false);
  t.boolean("expert_weights_norm", "norm_topk_prob");
  t.integer("leading_dense_block_count", "first_k_dense_replace");
  if (t.integer_of("expert_group_count").value_or(0) > 1) {
    t.integer("expert_group_count", "n_group");
    t.integer("expert_group_used_count", "topk_group");
  } else {
    t.set("n_group", 1);
    t.set("topk_group", 1);
  }
  if (!t.has("routed_scaling_factor")) t.set("routed_scaling_factor", 1.0);
}

// Blocks that predict further tokens are counted with the others and not run.
void leave_out_next_tokens(GgufTranslator& t) {
  const int64_t further = t.integer_of("nextn_predict_layers").value_or(0), blocks = t.integer_of("block_count").value_or(0);
  t.must_be("nextn_predict_layers", 0);
  if (further > 0 && further < blocks) t.set("num_hidden_layers", blocks - further);
}

std::string translate_olmoe(GgufTranslator& t) {
  translate_biases(t);
  translate_counts(t, "num_experts", "num_experts_per_tok");
  if (t.real_of("attention.clamp_kqv").value_or(0) > 0) t.real("attention.clamp_kqv", "clip_qkv");
  t.must_be("expert_feed_forward_length", t.integer_of("feed_forward_length").value_or(0));
  return "";
}

void describe_olmoe(GgufDescriber& d) {
  d.experts();
  if (d.a.qkv_clip > 0) d.real("attention.clamp_kqv", d.a.qkv_clip);
}

std::string translate_granitemoe(GgufTranslator& t) {
  translate_biases(t);
  translate_counts(t, "num_local_experts", "num_experts_per_tok");
  t.real("embedding_scale", "embedding_multiplier");
  t.real("residual_scale", "residual_multiplier");
  t.real("attention.scale", "attention_multiplier");
  t.real("logit_scale", "logits_scaling");
  const bool shared = t.integer_of("expert_shared_feed_forward_length").value_or(0) > 0;
  t.must_be("expert_shared_feed_forward_length", 0);
  if (shared) t.integer("expert_shared_feed_forward_length", "shared_intermediate_size");
  return shared ? "granitemoeshared" : "";
}

void describe_granitemoe(GgufDescriber& d) {
  d.experts();
  d.scales();
  d.real("attention.scale", d.a.attention_scale);
  if (d.a.shared_intermediate_size > 0) d.integer("expert_shared_feed_forward_length", d.a.shared_intermediate_size);
}

void describe_deepseek_experts(GgufDescriber& d) { d.deepseek_experts(); }

std::string translate_glm4_moe(GgufTranslator& t) {
  translate_biases(t);
  translate_deepseek_experts(t);
  t.must_be("expert_gating_func", 2);
  t.set("use_qk_norm", t.has_tensor("blk.0.attn_q_norm.weight"));
  leave_out_next_tokens(t);
  return "";
}

std::string translate_dots1(GgufTranslator& t) {
  translate_biases(t);
  translate_deepseek_experts(t);
  t.must_be("expert_gating_func", 2);
  return "";
}

std::string translate_ernie_moe(GgufTranslator& t) {
  t.set("use_bias", t.qkv_bias());
  translate_counts(t, "moe_num_experts", "moe_k");
  t.integer("expert_feed_forward_length", "moe_intermediate_size");
  t.integer("leading_dense_block_count", "moe_layer_start_index");
  t.integer("interleave_moe_layer_step", "moe_layer_interval");
  t.integer("expert_shared_count", "moe_num_shared_experts");
  // The key of the shared expert's width holds another number; its matrix tells.
  t.must_be("expert_shared_feed_forward_length", 0);
  for (const TensorInfo& tensor : t.file().tensors())
    if (tensor.name.ends_with(".ffn_up_shexp.weight") && tensor.shape.size() == 2) t.set("moe_shared_intermediate_size", tensor.shape[0]);
  return "";
}

void describe_ernie_moe(GgufDescriber& d) {
  d.experts();
  d.expert_width();
  // Experts are in every step-th block, counted from 1, behind the first ones.
  const int64_t first = d.dense_blocks_first();
  const auto tells = [&](int64_t every) {
    for (int64_t i = first; i < d.a.blocks; ++i)
      if (d.a.layers[static_cast<size_t>(i)].experts != ((i + 1) % every == 0)) return false;
    return true;
  };
  int64_t step = 1;
  while (step < d.a.blocks && !tells(step)) ++step;
  d.integer("leading_dense_block_count", first);
  d.integer("interleave_moe_layer_step", step);
  d.integer("expert_shared_count", d.a.shared_intermediate_size / d.a.expert_intermediate_size);
  if (d.a.shared_intermediate_size > 0) d.integer("expert_shared_feed_forward_length", d.a.shared_intermediate_size);
}

std::string translate_hunyuan_moe(GgufTranslator& t) {
  translate_biases(t);
  translate_counts(t, "num_experts", "moe_topk");
  t.integer("expert_feed_forward_length", "moe_intermediate_size");
  t.integer("expert_shared_feed_forward_length", "moe_shared_intermediate_size");
  return "";
}

void describe_hunyuan_moe(GgufDescriber& d) {
  d.experts();
  d.expert_width();
  d.integer("expert_shared_feed_forward_length", d.a.shared_intermediate_size);
}

std::string translate_minimax_m2(GgufTranslator& t) {
  translate_width(t);
  translate_counts(t, "num_local_experts", "num_experts_per_tok");
  t.must_be("expert_gating_func", 2);
  return "";
}

void describe_minimax_m2(GgufDescriber& d) {
  d.experts();
  d.expert_width();
  d.gating();
}

std::string translate_phimoe(GgufTranslator& t) {
  translate_biases(t);
  translate_counts(t, "num_local_experts", "num_experts_per_tok");
  t.set("lm_head_bias", t.has_tensor("output.bias"));
  t.integer("attention.sliding_window", "sliding_window");
  if (t.integer_of("attention.sliding_window").value_or(0) == 0) t.set("sliding_window", nullptr);
  t.must_be("rope.scaling.original_context_length", 0);  // a default without a long rope
  return "";
}

void describe_phimoe(GgufDescriber& d) {
  d.experts();
  d.sliding_window();
}

std::string translate_gpt_oss(GgufTranslator& t) {
  translate_biases(t);
  translate_width(t);
  translate_counts(t, "num_local_experts", "num_experts_per_tok");
  t.window_pattern(2);
  if (t.has("rope_scaling")) t.set("rope_scaling.truncate", false);  // not stored, and always so
  if (!t.has("rope_scaling")) t.set("rope_scaling.rope_type", "default");
  return "";
}

void describe_gpt_oss(GgufDescriber& d) {
  d.experts();
  d.expert_width();
  d.sliding_window();
}

std::string translate_llama4(GgufTranslator& t) {
  translate_biases(t);
  translate_width(t);
  t.integer("feed_forward_length", "intermediate_size_mlp");
  translate_counts(t, "num_local_experts", "num_experts_per_tok");
  t.integer("interleave_moe_layer_step", "interleave_moe_layer_step");
  t.set("use_qk_norm", t.integer_of("expert_count") != 128);  // what llama.cpp takes it to be
  if (t.integer_of("attention.sliding_window") == 0) {
    const auto blocks = static_cast<size_t>(std::clamp<int64_t>(t.integer_of("block_count").value_or(0), 0, 1024));
    t.set("no_rope_layers", std::vector<int64_t>(blocks, 1));
    t.set("layer_types", std::vector<std::string>(blocks, "full_attention"));
  }
  return "";
}

void describe_llama4(GgufDescriber& d) {
  d.experts();
  d.expert_width();
  d.integer("interleave_moe_layer_step", d.dense_blocks_first() + 1);
}

// DeepSeek-V2 and V3, Kimi K2, GLM-4.7 Flash, Youtu; Mistral 4 under its own name. Which of them, the router tells.
std::string translate_deepseek2(GgufTranslator& t) {
  t.set("q_lora_rank", nullptr);
  t.integer("attention.q_lora_rank", "q_lora_rank");
  t.integer("attention.kv_lora_rank", "kv_lora_rank");
  t.integer("rope.dimension_count", "qk_rope_head_dim");
  const int64_t rotated = t.integer_of("rope.dimension_count").value_or(0), rank = t.integer_of("attention.kv_lora_rank").value_or(0);
  // Files since April 2025 tell the widths of heads beside those of the one latent head that llama.cpp computes with.
  const bool latent = t.integer_of("attention.key_length_mla").has_value();
  const char *key = latent ? "attention.key_length_mla" : "attention.key_length", *value = latent ? "attention.value_length_mla" : "attention.value_length";
  t.integer(key, "qk_nope_head_dim");
  t.set("qk_nope_head_dim", t.integer_of(key).value_or(0) - rotated);
  t.integer(value, "v_head_dim");
  if (latent) {
    t.must_be("attention.key_length", rank + rotated);
    t.must_be("attention.value_length", rank);
  }
  t.must_be("attention.head_count_kv", latent ? 1 : t.heads());
  t.set("num_key_value_heads", t.heads());
  t.set("attention_bias", t.has_tensor("blk.0.attn_kv_a_mqa.bias"));
  t.set("mlp_bias", t.mlp_bias());
  if (const auto stored = t.real_of("rope.scaling.yarn_log_multiplier"); stored && t.has("rope_scaling")) {
    t.real("rope.scaling.yarn_log_multiplier", "rope_scaling.mscale_all_dim");
    t.set("rope_scaling.mscale_all_dim", *stored * 10);
    t.set("rope_scaling.mscale", *stored * 10);  // not stored, and taken for the same: cosines and sines are as they are
    t.set("rope_scaling.attention_factor", nullptr);
  }
  leave_out_next_tokens(t);
  const bool mistral = t.arch() == "mistral4";
  if (mistral && t.has("rope_scaling")) {
    t.real("attention.temperature_scale", "rope_scaling.llama_4_scaling_beta");
    t.must_be("attention.temperature_length", t.integer_of("rope.scaling.original_context_length").value_or(0));
  }
  if (!t.integer_of("expert_count")) {
    t.must_be("expert_feed_forward_length", 0);
    t.must_be("leading_dense_block_count", t.integer_of("block_count").value_or(0));
    return "youtu";
  }
  translate_deepseek_experts(t);
  t.must_be("expert_gating_func", 0);
  if (mistral) return "";
  // Files without the key have softmaxes, but for GLM-4.7 Flash.
  const int64_t blocks = t.integer_of("block_count").value_or(0), vocabulary = t.has_tensor("token_embd.weight") ? t.file().find("token_embd.weight")->shape.front() : 0;
  const bool flash = (blocks == 47 || blocks == 48) && vocabulary == 154880;
  if (t.integer_of("expert_gating_func").value_or(flash ? 2 : 1) == 2) return "deepseek_v3";
  t.set("topk_method", t.integer_of("expert_group_count").value_or(0) > 1 ? "group_limited_greedy" : "greedy");
  return "deepseek_v2";
}

void describe_deepseek2(GgufDescriber& d) {
  const LatentSpec& l = d.a.latent;
  if (l.q_rank > 0) d.integer("attention.q_lora_rank", l.q_rank);
  d.integer("attention.kv_lora_rank", l.kv_rank);
  d.integer("rope.dimension_count", l.rope_dim);
  d.integer("attention.head_count_kv", 1);
  d.integer("attention.key_length", l.kv_rank + l.rope_dim);
  d.integer("attention.value_length", l.kv_rank);
  d.integer("attention.key_length_mla", l.nope_dim + l.rope_dim);
  d.integer("attention.value_length_mla", l.value_dim);
  if (const double all = d.rope_parameter("mscale_all_dim", 0); all > 0 && d.a.ropes.front().kind == RopeSpec::Kind::yarn) d.real("rope.scaling.yarn_log_multiplier", 0.1 * all);
  if (const PositionScaleOp& scale = d.a.layers.front().query_scale; scale.beta != 0) {
    d.real("attention.temperature_scale", scale.beta);
    d.integer("attention.temperature_length", scale.context);
  }
  if (d.a.experts > 0) return d.deepseek_experts();
  // Asked for although nothing has experts.
  d.integer("expert_feed_forward_length", d.a.intermediate_size);
  d.integer("expert_shared_count", 0);
  d.integer("leading_dense_block_count", d.a.blocks);
}

}  // namespace

GgufForm olmoe_gguf() { return {.names = {"olmoe"}, .translate = translate_olmoe, .describe = describe_olmoe}; }
GgufForm granitemoe_gguf() { return {.names = {"granitemoe"}, .permuted = true, .translate = translate_granitemoe, .describe = describe_granitemoe}; }
GgufForm glm4_moe_gguf() { return {.names = {"glm4moe"}, .partial_rotation = true, .translate = translate_glm4_moe, .describe = describe_deepseek_experts}; }
GgufForm dots1_gguf() { return {.names = {"dots1"}, .translate = translate_dots1, .describe = describe_deepseek_experts}; }
GgufForm ernie_moe_gguf() { return {.names = {"ernie4_5-moe"}, .translate = translate_ernie_moe, .describe = describe_ernie_moe}; }
GgufForm hunyuan_moe_gguf() { return {.names = {"hunyuan-moe"}, .translate = translate_hunyuan_moe, .describe = describe_hunyuan_moe}; }
GgufForm minimax_m2_gguf() { return {.names = {"minimax-m2"}, .partial_rotation = true, .translate = translate_minimax_m2, .describe = describe_minimax_m2}; }
GgufForm phimoe_gguf() { return {.names = {"phimoe"}, .translate = translate_phimoe, .describe = describe_phimoe, .rms_epsilon = true}; }
GgufForm gpt_oss_gguf() { return {.names = {"gpt-oss"}, .translate = translate_gpt_oss, .describe = describe_gpt_oss}; }
GgufForm llama4_gguf() { return {.names = {"llama4"}, .translate = translate_llama4, .describe = describe_llama4}; }
GgufForm deepseek_gguf(const std::string& name) { return {.names = {name}, .own_heads = true, .translate = translate_deepseek2, .describe = describe_deepseek2}; }

}  // namespace qb
