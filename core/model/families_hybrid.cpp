#include <fmt/format.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/model/family_fields.h"
#include "core/model/gguf_describer.h"
#include "core/model/gguf_translator.h"

// Families whose layers see their tokens in different ways. Facts as in families.cpp.
namespace qb {
namespace {

NameTable with_head_norms(NameTable n) {
  n.q_norm = "self_attn.q_norm", n.k_norm = "self_attn.k_norm";
  return n;
}

NameTable delta_names() {
  NameTable n = with_head_norms(llama_names());
  n.convolution = "linear_attn.conv1d", n.decay = "linear_attn.A_log", n.step = "linear_attn.dt_bias";
  n.delta_norm = "linear_attn.norm", n.delta_out = "linear_attn.out_proj";
  return n;
}

NameTable qwen3_next_names() {
  NameTable n = with_qwen_shared_expert(delta_names());
  n.delta_qkvz = "linear_attn.in_proj_qkvz", n.delta_ba = "linear_attn.in_proj_ba";
  return n;
}

NameTable qwen3_5_names() {
  NameTable n = delta_names();
  n.delta_qkv = "linear_attn.in_proj_qkv", n.delta_z = "linear_attn.in_proj_z", n.delta_b = "linear_attn.in_proj_b", n.delta_a = "linear_attn.in_proj_a";
  return n;
}

NameTable lfm2_names() {
  NameTable n = llama_names();
  n.final_norm = "model.embedding_norm";
  n.input_norm = "operator_norm", n.mlp_norm = "ffn_norm";
  n.o = "self_attn.out_proj", n.q_norm = "self_attn.q_layernorm", n.k_norm = "self_attn.k_layernorm";
  n.gate = "feed_forward.w1", n.up = "feed_forward.w3", n.down = "feed_forward.w2";
  n.convolution_in = "conv.in_proj", n.convolution = "conv.conv", n.convolution_out = "conv.out_proj";
  return n;
}

NameTable lfm2_moe_names() {
  NameTable n = lfm2_names();
  n.router = "feed_forward.gate", n.choice_bias = "feed_forward.expert_bias";
  n.expert = "feed_forward.experts.";
  n.expert_gate = "w1", n.expert_up = "w3", n.expert_down = "w2";
  return n;
}

// layer_types, one per block: full_attention, or what `name` calls `other`. full: which blocks see all where the configuration does not say.
void read_mixers(const ConfigFields& f, Architecture& a, const char* name, Mixer other, const std::function<bool(int64_t)>& full) {
  const auto types = f.texts("layer_types");
  if (f.has("layer_types") && static_cast<int64_t>(types.size()) != a.blocks) f.fail("layer_types", fmt::format("one entry for each of the {} blocks", a.blocks));
  if (types.empty() && !full) f.fail("layer_types", fmt::format("full_attention or {} for every block", name));
  for (int64_t i = 0; i < a.blocks; ++i) {
    if (!types.empty() && types[i] != "full_attention" && types[i] != name) f.fail("layer_types", fmt::format("full_attention or {} for every block", name));
    a.layers[i].mixer = (types.empty() ? full(i) : types[i] == "full_attention") ? Mixer::attention : other;
  }
}

// All that Qwen3-Next and Qwen3.5 have in common; the MLP's sizes are not.
void read_delta_family(const ConfigFields& f, Architecture& a, int64_t kv_heads) {
  f.integer({"head_dim"});  // 256 in transformers when absent
  read_dimensions(f, a, kv_heads);
  read_context(f, a);
  a.norm = NormKind::rms_plus_one;
  a.norm_eps = f.real({"rms_norm_eps"}, 1e-6);
  a.activation = read_activation(f, {"hidden_act"}, "silu");
  if (a.activation != Activation::silu) f.fail("hidden_act", "silu");  // the convolution's and the gate's
  read_tied(f, a, false);
  RopeDefaults rope;
  rope.fraction = 0.25;
  ConfigFields fields = f;
  // transformers writes its default beside rope_parameters, whatever those say, and reads only theirs.
  if (f.has("rope_parameters") && f.child("rope_parameters").has("partial_rotary_factor")) fields.replace("partial_rotary_factor", nullptr);
  read_rope(fields, a, rope);
  // Axes of positions, which are one for text.
  if (const ConfigFields params = rope_fields(f); params.has("mrope_section") && params.integers("mrope_section").size() != 3) params.fail("mrope_section", "three numbers");
  a.qkv_bias = a.o_bias = f.boolean("attention_bias", false);
  a.head_norm = HeadNorm::rms;
  a.output_gate = true;
  const bool listed = f.has("layer_types");
  const int64_t interval = listed ? 0 : f.integer({"full_attention_interval"}, 4);
  if (listed) f.without_effect({"full_attention_interval"});
  read_mixers(f, a, "linear_attention", Mixer::delta, [&](int64_t i) { return (i + 1) % interval == 0; });
  DeltaSpec& d = a.delta;
  d.key_heads = f.integer({"linear_num_key_heads"}, 16, 1, kMaxHeads);
  d.value_heads = f.integer({"linear_num_value_heads"}, 32, 1, kMaxHeads);
  if (d.value_heads % d.key_heads != 0) f.fail("linear_num_value_heads", fmt::format("a multiple of the {} key heads", d.key_heads));
  d.key_dim = f.integer({"linear_key_head_dim"}, 128, 1, 1 << 14);
  d.value_dim = f.integer({"linear_value_head_dim"}, 128, 1, 1 << 14);
  d.kernel = f.integer({"linear_conv_kernel_dim"}, 4, 1, 1 << 10);
  a.gguf.mlp_norm = "post_attention_norm";  // llama.cpp's name
}

void read_shared_expert(const ConfigFields& f, Architecture& a) {
  a.shared_intermediate_size = f.integer({"shared_expert_intermediate_size"}, 512, 1, kMaxWidth);
}

void configure_qwen3_next(const ConfigFields& f, Architecture& a) {
  read_delta_family(f, a, 2);
  read_intermediate(f, a);
  read_qwen_experts(f, a, {"num_experts", "num_local_experts"}, 10);
  a.normalise_expert_weights = f.boolean("norm_topk_prob", true);
  read_shared_expert(f, a);
}

void configure_qwen3_5(const ConfigFields& f, Architecture& a) {
  read_delta_family(f, a, 4);
  read_intermediate(f, a);
}

void configure_qwen3_5_moe(const ConfigFields& f, Architecture& a) {
  read_delta_family(f, a, 2);
  f.without_effect({"intermediate_size"});  // every block has experts
  read_experts(f, a, {"num_experts", "num_local_experts"}, 8);
  a.expert_intermediate_size = f.integer({"moe_intermediate_size"}, 512, 1, kMaxWidth);
  a.normalise_expert_weights = true;
  read_shared_expert(f, a);
  a.intermediate_size = a.shared_intermediate_size;
  for (LayerSpec& layer : a.layers) layer.experts = true;
}

void read_lfm2(const ConfigFields& f, Architecture& a) {
  read_dimensions(f, a, 8);
  read_context(f, a);
  a.norm_eps = f.real({"norm_eps"}, 1e-5);
  // The older key wins.
  a.tied_embeddings = f.boolean("tie_embedding", f.boolean("tie_word_embeddings", true));
  read_rope(f, a, whole_rotation(1e6));
  a.head_norm = HeadNorm::rms;
  a.convolution_kernel = f.integer({"conv_L_cache"}, 3, 1, 1 << 10);
  a.convolution_bias = f.boolean("conv_bias", false);
  a.gguf.final_norm = "token_embd_norm", a.gguf.convolution = "shortconv.conv";  // llama.cpp's names
}

void configure_lfm2(const ConfigFields& f, Architecture& a) {
  read_lfm2(f, a);
  const auto full = f.integers("full_attn_idxs");
  const bool stated = f.has("full_attn_idxs");
  if (f.has("layer_types")) f.without_effect({"full_attn_idxs"});
  read_mixers(f, a, "conv", Mixer::convolution, [&](int64_t i) { return !stated || std::find(full.begin(), full.end(), i) != full.end(); });
  const int64_t stated_size = f.integer({"intermediate_size"}, 12288, 1, kMaxWidth);
  int64_t size = f.integer({"block_ff_dim"}, stated_size, 1, kMaxWidth);  // the older key wins
  const bool adjusted = f.boolean("block_auto_adjust_ff_dim", true);
  const bool multiplied = f.has("block_ffn_dim_multiplier") || !f.json().contains("block_ffn_dim_multiplier");
  const double factor = f.real({"block_ffn_dim_multiplier"}, 1.0);
  const int64_t multiple = f.integer({"block_multiple_of"}, 256);
  if (adjusted) size = 2 * size / 3;
  if (adjusted && multiplied) {
    size = static_cast<int64_t>(factor * static_cast<double>(size));
    size = (size + multiple - 1) / multiple * multiple;
  }
  if (size < 1 || size > kMaxWidth) f.fail(f.has("block_ff_dim") ? "block_ff_dim" : "intermediate_size", fmt::format("a width that the block_ keys make one from 1 to {} of", kMaxWidth));
  a.intermediate_size = size;
}

void configure_lfm2_moe(const ConfigFields& f, Architecture& a) {
  read_lfm2(f, a);
  read_mixers(f, a, "conv", Mixer::convolution, {});
  read_intermediate(f, a);
  read_experts(f, a, {"num_experts", "num_local_experts"}, 4);
  a.expert_intermediate_size = f.integer({"moe_intermediate_size"}, 1792, 1, kMaxWidth);
  a.normalise_expert_weights = f.boolean("norm_topk_prob", true);
  a.router.score = RouterScore::sigmoid;
  a.router.normalise_eps = 1e-6;
  a.router.scale = f.real({"routed_scaling_factor"}, 1.0);
  if (!f.boolean("use_expert_bias", true)) a.names.choice_bias = "";
  const int64_t dense = f.integer({"num_dense_layers"}, 2, 0);
  for (int64_t i = dense; i < a.blocks; ++i) a.layers[i].experts = true;
}

std::string translate_delta(GgufTranslator& t) {
  t.set("attention_bias", t.has_tensor("blk.0.attn_q.bias"));
  t.integer("ssm.conv_kernel", "linear_conv_kernel_dim");
  t.integer("ssm.state_size", "linear_key_head_dim");
  t.integer("ssm.group_count", "linear_num_key_heads");
  t.integer("ssm.time_step_rank", "linear_num_value_heads");
  t.integer("ssm.inner_size", "linear_value_head_dim");
  const auto width = t.integer_of("ssm.inner_size"), heads = t.integer_of("ssm.time_step_rank");
  if (width && heads && *heads > 0) {
    t.must_be("ssm.inner_size", *width / *heads * *heads);
    t.set("linear_value_head_dim", *width / *heads);
  }
  t.integer("full_attention_interval", "full_attention_interval");
  t.integer("expert_count", "num_experts");
  t.integer("expert_used_count", "num_experts_per_tok");
  t.integer("expert_feed_forward_length", "moe_intermediate_size");
  t.integer("expert_shared_feed_forward_length", "shared_expert_intermediate_size");
  // Blocks that predict further tokens count as blocks there, and come last.
  if (const auto further = t.integer_of("nextn_predict_layers"); further && *further > 0)
    t.set("num_hidden_layers", std::max<int64_t>(0, t.integer_of("block_count").value_or(0) - *further));
  return "";
}

void describe_delta(GgufDescriber& d) {
  const DeltaSpec& s = d.a.delta;
  d.integer("ssm.conv_kernel", s.kernel);
  d.integer("ssm.state_size", s.key_dim);
  d.integer("ssm.group_count", s.key_heads);
  d.integer("ssm.time_step_rank", s.value_heads);
  d.integer("ssm.inner_size", s.value_heads * s.value_dim);
  // One in so many sees everything: the first that does tells.
  const auto full = std::find_if(d.a.layers.begin(), d.a.layers.end(), [](const LayerSpec& layer) { return layer.mixer == Mixer::attention; });
  d.integer("full_attention_interval", full - d.a.layers.begin() + 1);
  if (d.arch() != "qwen3next") d.rope_sections(true);
  if (d.a.experts == 0) return;
  d.experts();
  d.expert_width();
  d.integer("expert_shared_feed_forward_length", d.a.shared_intermediate_size);
}

std::string translate_lfm2(GgufTranslator& t) {
  t.forget("rms_norm_eps");
  t.real("attention.layer_norm_rms_epsilon", "norm_eps");
  const int64_t dim = t.hidden() / t.heads();
  for (const char* key : {"attention.key_length", "attention.value_length", "rope.dimension_count"}) t.must_be(key, dim);
  // A block without keys and values is a convolution.
  auto kv_heads = t.integers_of("attention.head_count_kv");
  if (kv_heads.empty()) kv_heads.assign(static_cast<size_t>(std::clamp<int64_t>(t.integer_of("block_count").value_or(0), 0, kMaxBlocks)), t.integer_of("attention.head_count_kv").value_or(0));
  int64_t most = 0;
  std::vector<std::string> types;
  for (int64_t count : kv_heads) {
    types.push_back(count > 0 ? "full_attention" : "conv");
    if (count > 0 && most > 0 && count != most)
      throw InputError(fmt::format("{}: key \"{}\" has {} and {} key/value heads, expected the same in all blocks with attention", t.origin(), t.full("attention.head_count_kv"), most, count));
    most = std::max(most, count);
  }
  t.set("layer_types", types);
  if (most > 0) t.set("num_key_value_heads", most);
  t.integer("shortconv.l_cache", "conv_L_cache");
  t.set("block_auto_adjust_ff_dim", false);  // feed_forward_length is what comes of it
  const auto& tensors = t.file().tensors();
  t.set("conv_bias", std::any_of(tensors.begin(), tensors.end(), [](const TensorInfo& tensor) { return tensor.name.ends_with(".shortconv.in_proj.bias"); }));
  if (t.arch() != "lfm2moe") return "";
  t.integer("expert_count", "num_experts");
  t.integer("expert_used_count", "num_experts_per_tok");
  t.integer("expert_feed_forward_length", "moe_intermediate_size");
  t.integer("leading_dense_block_count", "num_dense_layers");
  t.must_be("expert_gating_func", 2);
  t.set("use_expert_bias", std::any_of(tensors.begin(), tensors.end(), [](const TensorInfo& tensor) { return tensor.name.ends_with(".exp_probs_b.bias"); }));
  return "";
}

void describe_lfm2(GgufDescriber& d) {
  std::vector<int64_t> kv_heads;
  for (const LayerSpec& layer : d.a.layers) kv_heads.push_back(layer.mixer == Mixer::attention ? d.a.kv_heads : 0);
  d.integers("attention.head_count_kv", kv_heads);
  d.integer("rope.dimension_count", d.a.head_dim);
  d.integer("shortconv.l_cache", d.a.convolution_kernel);
  if (d.arch() != "lfm2moe") return;
  d.experts();
  d.expert_width();
  d.integer("leading_dense_block_count", d.dense_blocks_first());
  d.gating();
}

GgufForm delta_gguf(const std::string& name) {
  // Only Qwen3-Next's files keep Hugging Face's order of value heads.
  return {.names = {name}, .tiled_heads = name != "qwen3next", .partial_rotation = true, .translate = translate_delta, .describe = describe_delta};
}

GgufForm lfm2_gguf(const std::string& name) { return {.names = {name}, .own_heads = true, .translate = translate_lfm2, .describe = describe_lfm2}; }

// Heads that predict further tokens, the dtype of a kernel's state, and the order of the axes of positions.
std::vector<HarmlessKey> delta_harmless() {
  return {{"mtp_*", {}}, {"attn_output_gate", {true}}, {"mamba_ssm_dtype", {}}, {"mrope_interleaved", {}}, {"rope.dimension_sections", {}}};
}

// How its authors initialised it, and sizes that are hidden_size's or num_attention_heads'.
std::vector<HarmlessKey> lfm2_harmless() {
  return {{"block_dim", {}}, {"block_norm_eps", {}}, {"block_use_swiglu", {true}}, {"block_mlp_init_scale", {}}, {"block_out_init_scale", {}}, {"block_use_xavier_init", {}},
          {"conv_use_xavier_init", {}}, {"conv_dim", {}}, {"conv_dim_out", {}}, {"num_heads", {}}, {"theta", {1000000}}, {"use_pos_enc", {true}}};
}

}  // namespace

std::vector<Family> hybrid_families() {
  return {
      {"qwen3_next", "Qwen3-Next", {"qwen3_next"}, delta_gguf("qwen3next"), qwen3_next_names(), configure_qwen3_next, delta_harmless()},
      {"qwen3_5", "Qwen3.5", {"qwen3_5_text", "qwen3_5"}, delta_gguf("qwen35"), qwen3_5_names(), configure_qwen3_5, delta_harmless()},
      {"qwen3_5_moe", "Qwen3.5-MoE", {"qwen3_5_moe_text", "qwen3_5_moe"}, delta_gguf("qwen35moe"), with_qwen_shared_expert(qwen3_5_names()), configure_qwen3_5_moe, delta_harmless()},
      {"lfm2", "LFM2", {"lfm2"}, lfm2_gguf("lfm2"), lfm2_names(), configure_lfm2, lfm2_harmless()},
      {"lfm2_moe", "LFM2-MoE", {"lfm2_moe"}, lfm2_gguf("lfm2moe"), lfm2_moe_names(), configure_lfm2_moe, lfm2_harmless()},
  };
}

}  // namespace qb
