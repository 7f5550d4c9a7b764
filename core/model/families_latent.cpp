#include <fmt/format.h>

#include <cmath>

#include "core/model/family_fields.h"
#include "core/model/gguf_families.h"

// Families with latent attention. Facts as in families.cpp.
namespace qb {
namespace {

NameTable latent_names() {
  NameTable n = deepseek_expert_names(llama_names());
  n.k = n.v = "";
  n.q_a = "self_attn.q_a_proj", n.q_a_norm = "self_attn.q_a_layernorm", n.q_b = "self_attn.q_b_proj";
  n.kv_a = "self_attn.kv_a_proj_with_mqa", n.kv_a_norm = "self_attn.kv_a_layernorm", n.kv_b = "self_attn.kv_b_proj";
  return n;
}

NameTable with_choice_bias(NameTable n) {
  n.choice_bias = "mlp.gate.e_score_correction_bias";
  return n;
}

double magnitude(double factor, double mscale) { return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1; }

ConfigFields rope_parameters(const ConfigFields& f) {
  return f.child(f.has("rope_scaling") && !f.json().at("rope_scaling").empty() ? "rope_scaling" : "rope_parameters");
}

// Everything but the experts. fraction_keys: where the configuration tells how much of a head is rotated besides its widths.
void read_latent(const ConfigFields& f, Architecture& a, int64_t q_rank, const std::vector<std::string>& fraction_keys = {}) {
  LatentSpec& l = a.latent;
  l.q_rank = f.integer({"q_lora_rank"}, f.json().contains("q_lora_rank") ? 0 : q_rank, 1, kMaxWidth);
  l.kv_rank = f.integer({"kv_lora_rank"}, {}, 1, kMaxWidth);
  l.nope_dim = f.integer({"qk_nope_head_dim"}, {}, 1, 1 << 14);
  l.rope_dim = f.integer({"qk_rope_head_dim"}, {}, 2, 1 << 14);
  l.value_dim = f.integer({"v_head_dim"}, {}, 1, 1 << 14);
  const int64_t dim = l.nope_dim + l.rope_dim;
  if (const int64_t stated = f.integer({"head_dim"}, dim); stated != dim && stated != l.rope_dim)
    f.fail("head_dim", fmt::format("{}, qk_nope_head_dim + qk_rope_head_dim, or {}, qk_rope_head_dim", dim, l.rope_dim));
  ConfigFields with = f;
  with.replace("head_dim", dim);
  RopeDefaults rope = whole_rotation();
  rope.fraction_keys = fraction_keys;
  rope.fraction = (static_cast<double>(l.rope_dim) + 1e-6) / static_cast<double>(dim);
  llama_like(with, a, 0, rope);
  if (a.ropes.front().dim != l.rope_dim) f.fail(fraction_keys.front(), fmt::format("{} of the {} dimensions of a head, as qk_rope_head_dim says", l.rope_dim, dim));
  if (a.kv_heads != a.heads) f.fail("num_key_value_heads", fmt::format("{}, as many as attention heads", a.heads));
  if (a.ropes.front().kind != RopeSpec::Kind::plain) {
    const ConfigFields params = rope_parameters(f);
    if (const double all = params.real({"mscale_all_dim"}, 0.0, -1); all > 0) a.attention_scale *= std::pow(magnitude(params.real({"factor"}, 1.0), all), 2);
  }
  l.bias = a.o_bias = f.boolean("attention_bias", false);
  for (LayerSpec& layer : a.layers) layer.mixer = Mixer::latent;
}

void configure_deepseek_v2(const ConfigFields& f, Architecture& a) {
  read_latent(f, a, 1536);
  a.rope_interleaved = true;
  a.mlp_bias = a.shared_bias = f.boolean("mlp_bias", false);
  const std::string method = f.text({"topk_method"}, "greedy");
  if (method != "greedy" && method != "group_limited_greedy") f.fail("topk_method", "greedy or group_limited_greedy");
  if (method == "greedy") {
    f.without_effect({"n_group", "topk_group"});
  } else {
    for (const char* key : {"n_group", "topk_group"}) f.integer({key});  // no defaults
  }
  read_deepseek_experts(f, a, {.used = 0, .shared = 2, .dense = 0, .normalise = false});
  if (a.normalise_expert_weights) f.fail("norm_topk_prob", "false, which the forward pass of deepseek_v2 takes it for");
  a.router.score = RouterScore::softmax;
  a.router.group_by_two = false;
  if (method == "greedy") a.router.groups = a.router.used_groups = 1;
}

void configure_deepseek_v3(const ConfigFields& f, Architecture& a) {
  read_latent(f, a, 1536);
  a.rope_interleaved = f.boolean("rope_interleave", true);
  ConfigFields with = f;
  with.set_default("n_group", 8);
  with.set_default("topk_group", 4);
  with.set_default("routed_scaling_factor", 2.5);
  read_deepseek_experts(with, a, {.used = 8, .shared = 1, .dense = 3, .normalise = true});
}

void configure_glm4_moe_lite(const ConfigFields& f, Architecture& a) {
  read_latent(f, a, 768);
  a.norm_eps = f.real({"rms_norm_eps"}, 1e-5);
  a.rope_interleaved = f.boolean("rope_interleave", true);
  ConfigFields with = f;
  with.set_default("routed_scaling_factor", 1.8);
  read_deepseek_experts(with, a, {.used = 4, .shared = 1, .dense = 1, .normalise = true});
  const std::vector<std::string> types = f.texts("mlp_layer_types");
  if (f.has("mlp_layer_types") && static_cast<int64_t>(types.size()) != a.blocks) f.fail("mlp_layer_types", fmt::format("one entry for each of the {} blocks", a.blocks));
  for (size_t i = 0; i < types.size(); ++i) {
    if (types[i] != "dense" && types[i] != "sparse") f.fail("mlp_layer_types", "dense or sparse for every block");
    if (f.has("first_k_dense_replace") && a.layers[i].experts != (types[i] == "sparse")) f.fail("first_k_dense_replace", "the number of dense blocks at the start of mlp_layer_types");
    a.layers[i].experts = types[i] == "sparse";
  }
}

void configure_youtu(const ConfigFields& f, Architecture& a) {
  read_latent(f, a, 1536);
  a.rope_interleaved = f.boolean("rope_interleave", true);
  a.mlp_bias = f.boolean("mlp_bias", false);
  read_tied(f, a, true);
}

void configure_mistral4(const ConfigFields& f, Architecture& a) {
  // Its own default is a YaRN for a model of another size: too easily wrong to guess.
  if (!f.has("rope_parameters") && !f.has("rope_scaling") && !f.has("rope_theta")) f.fail("rope_parameters", "an object");
  read_latent(f, a, 1024, {"partial_rotary_factor"});
  a.rope_interleaved = f.boolean("rope_interleave", true);
  read_deepseek_experts(f, a, {.used = 4, .shared = 1, .dense = 0, .normalise = true});
  a.router.score = RouterScore::softmax;
  a.router.wide = false;
  if (a.ropes.front().kind == RopeSpec::Kind::plain) return;
  const ConfigFields params = rope_parameters(f);
  if (const double beta = params.real({"llama_4_scaling_beta"}, 0.0); beta > 0)
    for (LayerSpec& layer : a.layers) layer.query_scale = {beta, params.integer({"original_max_position_embeddings"}), 0};
}

}  // namespace

std::vector<Family> latent_families() {
  const std::vector<HarmlessKey> third = deepseek_harmless({{"scoring_func", {"sigmoid"}}, {"topk_method", {"noaux_tc"}}});
  return {
      {"deepseek_v2", "DeepSeek V2", {"deepseek_v2"}, {}, latent_names(), configure_deepseek_v2, deepseek_harmless({{"scoring_func", {"softmax"}}})},
      {"deepseek_v3", "DeepSeek V3/R1 and Kimi K2", {"deepseek_v3", "kimi_k2"}, deepseek_gguf("deepseek2"), with_choice_bias(latent_names()), configure_deepseek_v3, third},
      {"glm4_moe_lite", "GLM-4.7 Flash", {"glm4_moe_lite"}, {}, with_choice_bias(latent_names()), configure_glm4_moe_lite, third},
      {"youtu", "Youtu", {"youtu"}, {}, latent_names(), configure_youtu, deepseek_harmless({{"embedding_initializer_range", {}}})},
      {"mistral4", "Mistral 4", {"mistral4"}, deepseek_gguf("mistral4"), latent_names(), configure_mistral4, deepseek_harmless({})},
  };
}

}  // namespace qb
