#include <fmt/format.h>

#include <cmath>

#include "core/model/family_fields.h"
#include "core/model/gguf_families.h"

// Families with experts and ordinary attention. Facts as in families.cpp.
namespace qb {
namespace {

NameTable shared_named(NameTable n, const std::string& folder) {
  n.shared_gate = folder + ".gate_proj", n.shared_up = folder + ".up_proj", n.shared_down = folder + ".down_proj";
  return n;
}

NameTable granitemoe_names() {
  NameTable n = llama_names();
  n.router = "block_sparse_moe.router.layer";
  n.expert = "block_sparse_moe.experts.";
  n.expert_gate = "gate_proj", n.expert_up = "up_proj", n.expert_down = "down_proj";
  n.fused_gate_up = "block_sparse_moe.input_linear", n.fused_down = "block_sparse_moe.output_linear";
  n.shared_gate_up = "shared_mlp.input_linear", n.shared_down = "shared_mlp.output_linear";
  return n;
}

NameTable glm4_moe_names() {
  NameTable n = deepseek_expert_names(qwen3_names());
  n.choice_bias = "mlp.gate.e_score_correction_bias";
  return n;
}

NameTable solar_open_names() {
  NameTable n = glm4_moe_names();
  n.q_norm = n.k_norm = "";
  return n;
}

NameTable ernie_moe_names() {
  NameTable n = deepseek_expert_names(llama_names());
  n.choice_bias = "mlp.moe_statics.e_score_correction_bias";
  return n;
}

NameTable hunyuan_moe_names() {
  NameTable n = shared_named(with_qwen_experts(with_hunyuan_norms(llama_names())), "mlp.shared_mlp");
  n.router = "mlp.gate.wg";
  return n;
}

NameTable minimax_m2_names() {
  NameTable n = mixtral_names();
  n.q_norm = "self_attn.q_norm", n.k_norm = "self_attn.k_norm";
  n.choice_bias = "block_sparse_moe.e_score_correction_bias";
  return n;
}

NameTable gpt_oss_names() {
  NameTable n = with_qwen_experts(llama_names());
  n.router = "mlp.router";
  n.sinks = "self_attn.sinks";
  return n;
}

NameTable llama4_names() {
  NameTable n = llama_names();
  n.gate = "feed_forward.gate_proj", n.up = "feed_forward.up_proj", n.down = "feed_forward.down_proj";
  n.router = "feed_forward.router";
  n.expert = "feed_forward.experts.";
  n.expert_gate = "gate_proj", n.expert_up = "up_proj", n.expert_down = "down_proj";
  return shared_named(n, "feed_forward.shared_expert");
}

void experts_everywhere(Architecture& a) {
  a.expert_intermediate_size = a.intermediate_size;
  for (LayerSpec& layer : a.layers) layer.experts = true;
}

void configure_olmoe(const ConfigFields& f, Architecture& a) {
  llama_like(f, a, 0, whole_rotation());
  a.norm_eps = f.real({"rms_norm_eps"}, 1e-5);
  a.qkv_bias = a.o_bias = f.boolean("attention_bias", false);
  a.head_norm = HeadNorm::whole;
  a.qkv_clip = f.real({"clip_qkv"}, 0.0);
  read_experts(f, a, {"num_experts", "num_local_experts"}, 8);
  a.normalise_expert_weights = f.boolean("norm_topk_prob", false);
  experts_everywhere(a);
}

void configure_granitemoe(const ConfigFields& f, Architecture& a) {
  llama_like(f, a, 0, whole_rotation());
  a.qkv_bias = a.o_bias = f.boolean("attention_bias", false);
  a.embedding_scale = f.real({"embedding_multiplier"}, 1.0);
  a.residual_scale = f.real({"residual_multiplier"}, 1.0);
  a.attention_scale = f.real({"attention_multiplier"}, 1.0);
  a.logit_scale = 1 / f.real({"logits_scaling"}, 1.0);
  read_experts(f, a, {"num_local_experts", "num_experts"}, 2);
  a.normalise_expert_weights = true;
  experts_everywhere(a);
}

void configure_granitemoeshared(const ConfigFields& f, Architecture& a) {
  configure_granitemoe(f, a);
  a.shared_intermediate_size = f.integer({"shared_intermediate_size"}, 0, 0, kMaxWidth);
}

void configure_glm4_moe(const ConfigFields& f, Architecture& a) {
  RopeDefaults rope;
  rope.fraction = 0.5;
  llama_like(f, a, 8, rope);
  a.norm_eps = f.real({"rms_norm_eps"}, 1e-5);
  a.gguf.mlp_norm = "post_attention_norm";
  a.qkv_bias = f.boolean("attention_bias", false);
  if (f.boolean("use_qk_norm", false)) a.head_norm = HeadNorm::rms;
  read_deepseek_experts(f, a, {.used = 8, .shared = 1, .dense = 1, .normalise = true});
}

void configure_solar_open(const ConfigFields& f, Architecture& a) {
  llama_like(f, a, 8, {});
  a.norm_eps = f.real({"rms_norm_eps"}, 1e-5);
  a.qkv_bias = f.boolean("attention_bias", false);
  a.gguf.mlp_norm = "post_attention_norm";
  if (f.boolean("use_qk_norm", false)) f.fail("use_qk_norm", "false");
  read_deepseek_experts(f, a, {.used = 8, .shared = 1, .dense = 0, .normalise = true});
}

void configure_dots1(const ConfigFields& f, Architecture& a) {
  llama_like(f, a, 32, whole_rotation());
  a.qkv_bias = a.o_bias = f.boolean("attention_bias", false);
  a.head_norm = HeadNorm::rms;
  read_deepseek_experts(f, a, {.used = 0, .shared = 0, .dense = 0, .normalise = false});
  const int64_t window = f.integer({"sliding_window"}, 0), first = f.integer({"max_window_layers"}, 62, 0);
  set_layer_windows(f, a, window, [&](int64_t i) { return window > 0 && i >= first; });
}

void configure_ernie_moe(const ConfigFields& f, Architecture& a) {
  llama_like(f, a, 4, whole_rotation(5e5));
  a.norm_eps = f.real({"rms_norm_eps"}, 1e-5);
  read_tied(f, a, true);
  a.rope_interleaved = true;
  a.qkv_bias = a.o_bias = a.mlp_bias = a.shared_bias = a.head_bias = f.boolean("use_bias", false);
  read_experts(f, a, {"moe_num_experts"}, 6, "moe_k");
  a.expert_intermediate_size = f.integer({"moe_intermediate_size"}, {}, 1, kMaxWidth);
  // GGUF files say how wide the shared expert is, configurations how many experts wide.
  a.shared_intermediate_size = f.integer({"moe_shared_intermediate_size"}, f.integer({"moe_num_shared_experts"}, 2, 0) * a.expert_intermediate_size, 0, kMaxWidth);
  a.router.wide = true;
  a.normalise_expert_weights = true;
  a.router.normalise_eps = -f.real({"moe_norm_min"}, 1e-12);
  const int64_t start = f.integer({"moe_layer_start_index"}, 1, 0), end = f.integer({"moe_layer_end_index"}, -1, -1), step = f.integer({"moe_layer_interval"}, 1);
  for (int64_t i = 0; i < a.blocks; ++i) a.layers[static_cast<size_t>(i)].experts = (i + 1) % step == 0 && i >= start && (end < 0 || i <= end);
}

// One number, or a list with the same one for every block.
int64_t same_in_all(const ConfigFields& f, const std::string& key, std::optional<int64_t> missing) {
  if (!f.has(key) || !f.json().at(key).is_array()) return f.integer({key}, missing);
  const std::vector<int64_t> list = f.integers(key);
  for (int64_t value : list)
    if (value < 1 || value != list.front()) f.fail(key, "one positive number, the same for all blocks");
  if (list.empty()) f.fail(key, "one entry a block");
  return list.front();
}

void configure_hunyuan_moe(const ConfigFields& f, Architecture& a) {
  hunyuan_like(f, a, 0);
  a.experts = same_in_all(f, "num_experts", {});
  a.experts_per_token = same_in_all(f, "moe_topk", 1);
  if (a.experts_per_token > a.experts) f.fail("moe_topk", fmt::format("at most the {} experts", a.experts));
  experts_everywhere(a);
  if (f.has("moe_intermediate_size") && same_in_all(f, "moe_intermediate_size", {}) != a.intermediate_size)
    f.fail("moe_intermediate_size", fmt::format("{}, as intermediate_size", a.intermediate_size));
  if (f.has("attention_head_dim") && f.integer({"attention_head_dim"}) != a.head_dim) f.fail("attention_head_dim", fmt::format("{}, as wide as the heads are", a.head_dim));
  a.shared_intermediate_size = f.integer({"moe_shared_intermediate_size"}, a.intermediate_size, 1, kMaxWidth);
  a.router.wide = true;
  a.normalise_expert_weights = true;
}

void configure_minimax_m2(const ConfigFields& f, Architecture& a) {
  // The published configurations say rotary_dim where transformers' say a fraction.
  const int64_t head_dim = f.integer({"head_dim"}, {}, 1, 1 << 14), rotary_dim = f.integer({"rotary_dim"}, 0);
  RopeDefaults rope;
  rope.theta = 5e6;
  if (rotary_dim > 0) rope.fraction = (static_cast<double>(rotary_dim) + 1e-6) / static_cast<double>(head_dim);
  if (rotary_dim > head_dim) f.fail("rotary_dim", fmt::format("at most the {} dimensions of a head", head_dim));
  llama_like(f, a, -1, rope);
  if (rotary_dim > 0 && a.ropes.front().dim != rotary_dim) f.fail("rotary_dim", fmt::format("{}, as partial_rotary_factor says", a.ropes.front().dim));
  a.head_norm = HeadNorm::whole;
  read_experts(f, a, {"num_local_experts", "num_experts"}, 8);
  a.router.score = RouterScore::sigmoid;
  a.normalise_expert_weights = true;
  experts_everywhere(a);
}

void configure_phimoe(const ConfigFields& f, Architecture& a) {
  llama_like(f, a, -1, whole_rotation(1e6));
  a.norm = NormKind::layer;
  a.norm_eps = f.real({"rms_norm_eps"}, 1e-5);
  a.qkv_bias = a.o_bias = f.boolean("attention_bias", false);
  a.head_bias = f.boolean("lm_head_bias", false);
  set_window(f, a, {});
  f.without_effect({"original_max_position_embeddings"});  // a default without a long rope
  read_experts(f, a, {"num_local_experts", "num_experts"}, 2);
  if (a.experts_per_token != 2) f.fail("num_experts_per_tok", "2, which the sparse mixer chooses");
  a.router.score = RouterScore::sparse_mixer;
  a.router.jitter = f.real({"router_jitter_noise"}, 0.01);
  experts_everywhere(a);
}

void configure_gpt_oss(const ConfigFields& f, Architecture& a) {
  f.integer({"head_dim"});  // 64 in transformers when absent: too easily wrong to guess
  ConfigFields with = f;
  if (!f.has("rope_scaling") && !f.has("rope_parameters"))
    with.replace("rope_parameters", {{"rope_type", "yarn"}, {"factor", 32.0}, {"original_max_position_embeddings", 4096}, {"truncate", false}});
  f.without_effect({"hidden_act"});  // its activation is fixed
  llama_like(with, a, 8, whole_rotation(1.5e5));
  a.norm_eps = f.real({"rms_norm_eps"}, 1e-5);
  a.qkv_bias = a.o_bias = f.boolean("attention_bias", true);
  a.activation = Activation::clamped_swiglu;
  a.gguf.mlp_norm = "post_attention_norm";
  read_experts(f, a, {"num_local_experts", "num_experts"}, f.has("experts_per_token") ? f.integer({"experts_per_token"}) : 4);
  if (f.has("experts_per_token") && f.integer({"experts_per_token"}) != a.experts_per_token) f.fail("experts_per_token", fmt::format("{}, as num_experts_per_tok", a.experts_per_token));
  a.normalise_expert_weights = true;
  a.router_bias = a.expert_bias = true;
  a.experts_transposed = a.experts_interleaved = true;
  experts_everywhere(a);
  set_layer_windows(f, a, f.integer({"sliding_window"}, f.json().contains("sliding_window") ? 0 : 128), [](int64_t i) { return i % 2 == 0; });
}

// Whether something is so, which early configurations wrote as a number.
bool truth(const ConfigFields& f, const std::string& key, bool missing) {
  if (f.has(key) && f.json().at(key).is_number_integer()) return f.integer({key}, {}, 0) != 0;
  return f.boolean(key, missing);
}

void configure_llama4(const ConfigFields& f, Architecture& a) {
  f.integer({"head_dim"});
  llama_like(f, a, 8, whole_rotation(5e5));
  a.norm_eps = f.real({"rms_norm_eps"}, 1e-5);
  a.qkv_bias = a.o_bias = f.boolean("attention_bias", false);
  a.rope_interleaved = true;
  a.head_norm_after_rope = true;
  a.expert_intermediate_size = a.shared_intermediate_size = a.intermediate_size;
  a.intermediate_size = f.integer({"intermediate_size_mlp"}, {}, 1, kMaxWidth);
  read_experts(f, a, {"num_local_experts", "num_experts"}, 1);
  a.router.score = RouterScore::sigmoid;
  a.weigh_expert_inputs = true;
  a.experts_transposed = true;

  // Which blocks have experts, rotate, and see their chunk only.
  std::vector<int64_t> with_experts = f.integers("moe_layers");
  const int64_t step = f.integer({"interleave_moe_layer_step"}, 1);
  if (!f.has("moe_layers"))
    for (int64_t i = step - 1; i < a.blocks; i += step) with_experts.push_back(i);
  for (int64_t i : with_experts) {
    if (i < 0 || i >= a.blocks) f.fail("moe_layers", fmt::format("numbers of the {} blocks", a.blocks));
    a.layers[static_cast<size_t>(i)].experts = true;
  }
  const std::vector<int64_t> rotates = f.integers("no_rope_layers");  // 1: it rotates
  const int64_t interval = f.integer({"no_rope_layer_interval"}, 4);
  if (!rotates.empty() && static_cast<int64_t>(rotates.size()) != a.blocks) f.fail("no_rope_layers", fmt::format("one entry for each of the {} blocks", a.blocks));
  const std::vector<std::string> types = f.texts("layer_types");
  if (f.has("layer_types") && static_cast<int64_t>(types.size()) != a.blocks) f.fail("layer_types", fmt::format("one entry for each of the {} blocks", a.blocks));
  const int64_t chunk = f.integer({"attention_chunk_size"}, f.json().contains("attention_chunk_size") ? 0 : 8192);
  const bool unit = f.boolean("use_qk_norm", true), tuned = truth(f, "attn_temperature_tuning", true);
  const PositionScaleOp scale{f.real({"attn_scale"}, 0.1), f.integer({"floor_scale"}, 8192), 1};
  for (int64_t i = 0; i < a.blocks; ++i) {
    LayerSpec& layer = a.layers[static_cast<size_t>(i)];
    const bool rotated = rotates.empty() ? (i + 1) % interval != 0 : rotates[static_cast<size_t>(i)] != 0;
    const std::string type = types.empty() ? rotated ? "chunked_attention" : "full_attention" : types[static_cast<size_t>(i)];
    if (type != "chunked_attention" && type != "full_attention") f.fail("layer_types", "full_attention or chunked_attention for every block");
    if (type == "chunked_attention" && chunk == 0) f.fail("attention_chunk_size", "a number of tokens, as layer_types has chunked_attention");
    if (type == "chunked_attention") layer.chunk = chunk;
    if (rotated && unit) layer.head_norm = HeadNorm::unit;
    if (!rotated) layer.rope = -1;
    if (!rotated && tuned) layer.query_scale = scale;
  }
}

}  // namespace

NameTable deepseek_expert_names(NameTable n) { return shared_named(with_qwen_experts(std::move(n)), "mlp.shared_experts"); }

void read_deepseek_experts(const ConfigFields& f, Architecture& a, const DeepSeekExperts& defaults) {
  read_experts(f, a, {"n_routed_experts", "num_local_experts", "num_experts"}, defaults.used);
  a.expert_intermediate_size = f.integer({"moe_intermediate_size"}, {}, 1, kMaxWidth);
  a.shared_intermediate_size = f.integer({"n_shared_experts"}, defaults.shared, 0, kMaxExperts) * a.expert_intermediate_size;
  if (a.shared_intermediate_size > kMaxWidth) f.fail("n_shared_experts", fmt::format("experts that are together at most {} wide", kMaxWidth));
  RouterOp& router = a.router;
  router.score = RouterScore::sigmoid;
  router.wide = true;
  router.groups = f.integer({"n_group"}, 1, 1, kMaxExperts);
  router.used_groups = f.integer({"topk_group"}, 1, 1, kMaxExperts);
  router.group_by_two = true;
  if (a.experts % router.groups != 0) f.fail("n_group", fmt::format("a divisor of the {} experts", a.experts));
  if (router.used_groups > router.groups) f.fail("topk_group", fmt::format("at most the {} groups", router.groups));
  const int64_t members = a.experts / router.groups;
  if (router.groups > 1 && members < 2) f.fail("n_group", fmt::format("groups of at least 2 of the {} experts", a.experts));
  if (members * router.used_groups < a.experts_per_token) f.fail("topk_group", fmt::format("groups with at least the {} experts of a token", a.experts_per_token));
  a.normalise_expert_weights = f.boolean("norm_topk_prob", defaults.normalise);
  router.normalise_eps = 1e-20;
  router.scale = f.real({"routed_scaling_factor"}, 1.0);
  const int64_t dense = f.integer({"first_k_dense_replace"}, defaults.dense, 0);
  for (int64_t i = 0; i < a.blocks; ++i) a.layers[static_cast<size_t>(i)].experts = i >= dense;
}

std::vector<HarmlessKey> deepseek_harmless(std::vector<HarmlessKey> more) {
  // What transformers does not read and the published models fix; layers that predict further tokens are not run.
  more.insert(more.end(), {{"num_nextn_predict_layers", {}}, {"num_mtp_layers", {}}, {"moe_layer_freq", {1}}, {"qk_head_dim", {}}});
  return more;
}

std::vector<Family> expert_families() {
  const std::vector<HarmlessKey> grouped = deepseek_harmless({{"scoring_func", {"sigmoid"}}, {"topk_method", {"noaux_tc"}}});
  return {
      {"olmoe", "OLMoE", {"olmoe"}, olmoe_gguf(), with_qwen_experts(qwen3_names()), configure_olmoe},
      {"granitemoe", "GraniteMoE", {"granitemoe"}, granitemoe_gguf(), granitemoe_names(), configure_granitemoe},
      {"granitemoeshared", "GraniteMoE with shared experts", {"granitemoeshared"}, {}, granitemoe_names(), configure_granitemoeshared},
      {"glm4_moe", "GLM-4.5/4.6", {"glm4_moe"}, glm4_moe_gguf(), glm4_moe_names(), configure_glm4_moe, grouped},
      {"solar_open", "Solar Open", {"solar_open"}, {}, solar_open_names(), configure_solar_open, grouped},
      {"dots1", "dots.llm1", {"dots1"}, dots1_gguf(), glm4_moe_names(), configure_dots1, grouped},
      {"ernie4_5_moe", "ERNIE 4.5 MoE", {"ernie4_5_moe"}, ernie_moe_gguf(), ernie_moe_names(), configure_ernie_moe,
       {{"moe_gate", {"topk"}}, {"moe_use_aux_free", {true}}, {"moe_group", {}}, {"moe_capacity", {}}, {"multi_token_pred*", {}}, {"compression_ratio", {1}},
        {"use_rmsnorm", {true}}, {"num_nextn_predict_layers", {}}}},
      {"hunyuan_v1_moe", "Hunyuan MoE", {"hunyuan_v1_moe"}, hunyuan_moe_gguf(), hunyuan_moe_names(), configure_hunyuan_moe,
       {{"num_shared_expert", {1}}, {"use_qk_norm", {true}}, {"use_mixed_mlp_moe", {true}}, {"moe_layer_num_skipped", {0}}, {"use_cla", {false}}, {"cla_share_factor", {}},
        {"norm_type", {"rms"}}, {"moe_drop_tokens", {}}, {"moe_random_routing_dropped_token", {}}, {"group_limited_greedy", {false}}, {"use_mla", {false}},
        {"routed_scaling_factor", {1}}, {"norm_topk_prob", {true}}}},
      {"minimax_m2", "MiniMax M2", {"minimax_m2"}, minimax_m2_gguf(), minimax_m2_names(), configure_minimax_m2,
       {{"scoring_func", {"sigmoid"}}, {"use_routing_bias", {true}}, {"use_qk_norm", {true}}, {"qk_norm_type", {"per_layer"}}, {"attn_type_list", {1}},
        {"shared_intermediate_size", {0}}, {"shared_moe_mode", {}}, {"layernorm_*", {1}}, {"postnorm", {false}}, {"use_mtp", {}}, {"num_mtp_modules", {}}, {"mtp_*", {}}}},
      {"phimoe", "PhiMoE", {"phimoe"}, phimoe_gguf(), mixtral_names(), configure_phimoe, {{"input_jitter_noise", {}}}},
      {"gpt_oss", "gpt-oss", {"gpt_oss"}, gpt_oss_gguf(), gpt_oss_names(), configure_gpt_oss, {{"initial_context_length", {}}, {"swiglu_limit", {7}}}},
      {"llama4", "Llama 4 (text)", {"llama4_text", "llama4"}, llama4_gguf(), llama4_names(), configure_llama4, {{"for_llm_compressor", {}}}},
  };
}

}  // namespace qb
