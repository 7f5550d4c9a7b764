#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/model/family_fields.h"
#include "core/model/gguf_describer.h"
#include "core/model/gguf_translator.h"

// Decoders with RMS norms that differ from a Llama by a few parameters. Facts as in families.cpp; those of Baichuan, MiniCPM and
// ChatGLM, which transformers does not have, are of their published modeling files.
namespace qb {
namespace {

// --- Gemma

void configure_gemma(const ConfigFields& f, Architecture& a) {
  f.integer({"head_dim"});
  read_dimensions(f, a, 16);
  read_intermediate(f, a);
  read_context(f, a);
  a.norm = NormKind::rms_plus_one;
  a.norm_eps = f.real({"rms_norm_eps"}, 1e-6);
  a.activation = read_activation(f, {"hidden_act"}, "gelu_pytorch_tanh");
  if (f.has("hidden_activation") && read_activation(f, {"hidden_activation"}) != a.activation) f.fail("hidden_activation", "the same as hidden_act, which counts");
  a.qkv_bias = a.o_bias = f.boolean("attention_bias", false);
  a.embedding_scale = std::sqrt(static_cast<double>(a.hidden_size));
  read_tied(f, a, true);
  read_rope(f, a, whole_rotation());
}

std::string translate_biases(GgufTranslator& t) {
  t.set("attention_bias", t.qkv_bias());
  t.set("mlp_bias", t.mlp_bias());
  return "";
}

// --- Seed-OSS, Arcee, ERNIE 4.5

void configure_seed_oss(const ConfigFields& f, Architecture& a) {
  f.integer({"head_dim"});
  llama_like(f, a, 8, whole_rotation());
  a.qkv_bias = f.boolean("attention_bias", true);
  a.o_bias = f.boolean("attention_out_bias", false);
  a.mlp_bias = f.boolean("mlp_bias", false);
  a.gguf.mlp_norm = "post_attention_norm";
}

std::string translate_seed_oss(GgufTranslator& t) {
  t.set("attention_out_bias", t.o_bias());
  return translate_biases(t);
}

NameTable arcee_names() {
  NameTable n = llama_names();
  n.gate = "";
  return n;
}

void configure_arcee(const ConfigFields& f, Architecture& a) {
  llama_like(f, a, 32, whole_rotation());
  a.norm_eps = f.real({"rms_norm_eps"}, 1e-5);
  a.activation = read_activation(f, {"hidden_act"}, "relu2");
  a.gated = false;
  a.qkv_bias = a.o_bias = f.boolean("attention_bias", false);
  a.mlp_bias = f.boolean("mlp_bias", false);
}

void configure_ernie(const ConfigFields& f, Architecture& a) {
  f.integer({"head_dim"});
  llama_like(f, a, 2, whole_rotation(5e5));
  a.norm_eps = f.real({"rms_norm_eps"}, 1e-5);
  a.rope_interleaved = true;
  a.qkv_bias = a.o_bias = a.mlp_bias = f.boolean("use_bias", false);
  read_tied(f, a, true);
}

std::string translate_ernie(GgufTranslator& t) {
  t.set("use_bias", t.qkv_bias());
  return "";
}

// --- GLM: pairs side by side in the first half of a head; gate and up in one matrix. GLM-4 has norms behind both branches too.

NameTable glm_names() {
  NameTable n = llama_names();
  n.gate = n.up = "";
  n.gate_up = "mlp.gate_up_proj";
  return n;
}

NameTable glm4_names() {
  NameTable n = glm_names();
  n.post_attention_norm = "post_self_attn_layernorm", n.post_mlp_norm = "post_mlp_layernorm";
  return n;
}

void configure_glm(const ConfigFields& f, Architecture& a) {
  f.integer({"head_dim"});
  RopeDefaults rope;
  rope.fraction = 0.5;
  llama_like(f, a, 2, rope);
  a.norm_eps = f.real({"rms_norm_eps"}, 1.5625e-07);
  a.rope_interleaved = true;
  a.qkv_bias = f.boolean("attention_bias", true);
}

// --- OLMo 2 and 3, EXAONE 4: norms behind attention and MLP, none before

NameTable norms_behind() {
  NameTable n = qwen3_names();
  n.input_norm = n.mlp_norm = "";
  n.post_attention_norm = "post_attention_layernorm", n.post_mlp_norm = "post_feedforward_layernorm";
  return n;
}

void configure_olmo2(const ConfigFields& f, Architecture& a) {
  llama_like(f, a, 32, whole_rotation());
  a.norm_eps = f.real({"rms_norm_eps"}, 1e-5);
  a.qkv_bias = a.o_bias = f.boolean("attention_bias", false);
  a.head_norm = HeadNorm::whole;
}

// What older configurations cannot say: a GGUF file's base of sliding layers.
constexpr const char* kSlidingBase = "sliding_attention_rope_theta";

void configure_olmo3(const ConfigFields& f, Architecture& a) {
  read_dimensions(f, a, 32);
  read_intermediate(f, a);
  read_context(f, a);
  a.norm_eps = f.real({"rms_norm_eps"}, 1e-5);
  a.activation = read_activation(f, {"hidden_act"}, "silu");
  a.qkv_bias = a.o_bias = f.boolean("attention_bias", false);
  a.head_norm = HeadNorm::whole;
  read_tied(f, a, false);
  set_layer_windows(f, a, f.integer({"sliding_window"}, f.json().contains("sliding_window") ? 0 : 4096), [](int64_t i) { return (i + 1) % 4 != 0; });
  if (f.has("rope_parameters") && !f.child("rope_parameters").has("full_attention"))
    f.fail("rope_parameters", "an object with full_attention and sliding_attention");
  read_rope_per_layer_type(f, a, 5e5, 5e5, kSlidingBase);
  for (LayerSpec& layer : a.layers) layer.rope = layer.window > 0 ? 1 : 0;
}

void describe_olmo2(GgufDescriber& d) {
  d.sliding_window();
  d.window_pattern();
  if (d.a.ropes.size() > 1) d.real("rope.freq_base_swa", d.a.ropes[1].theta);
}

std::string translate_olmo2(GgufTranslator& t) {
  translate_biases(t);
  if (!t.integer_of("attention.sliding_window")) return "";
  t.window_pattern(4);
  t.real("rope.freq_base_swa", kSlidingBase);
  if (!t.has(kSlidingBase)) t.set(kSlidingBase, t.real_of("rope.freq_base").value_or(1e4));
  return "olmo3";
}

void configure_exaone4(const ConfigFields& f, Architecture& a) {
  llama_like(f, a, 32, whole_rotation());
  a.norm_eps = f.real({"rms_norm_eps"}, 1e-5);
  a.head_norm = HeadNorm::rms;
  const int64_t window = f.integer({"sliding_window"}, f.json().contains("sliding_window") ? 0 : 4096);
  if (window == 0 || f.has("layer_types")) f.without_effect({"sliding_window_pattern"});
  const int64_t pattern = window == 0 || f.has("layer_types") ? 1 : f.integer({"sliding_window_pattern"}, 4);
  set_layer_windows(f, a, window, [&](int64_t i) { return (i + 1) % pattern != 0; });
  if (window > 0)
    for (LayerSpec& layer : a.layers) layer.rope = layer.window > 0 ? 0 : -1;
}

void describe_windows(GgufDescriber& d) {
  d.sliding_window();
  d.window_pattern();
}

std::string translate_exaone4(GgufTranslator& t) {
  if (t.integer_of("attention.sliding_window").value_or(0) > 0) {
    t.window_pattern(4);
  } else {
    t.see_everything();
  }
  return "";
}

// --- SmolLM3: every fourth layer without positions

void configure_smollm3(const ConfigFields& f, Architecture& a) {
  llama_like(f, a, 4, whole_rotation(2e6));
  a.qkv_bias = a.o_bias = f.boolean("attention_bias", false);
  a.mlp_bias = f.boolean("mlp_bias", false);
  read_tied(f, a, true);
  const auto rotated = f.integers("no_rope_layers");  // 1: it is rotated
  const int64_t interval = f.integer({"no_rope_layer_interval"}, 4);
  if (f.has("no_rope_layers") && static_cast<int64_t>(rotated.size()) != a.blocks) f.fail("no_rope_layers", fmt::format("one entry for each of the {} blocks", a.blocks));
  for (int64_t i = 0; i < a.blocks; ++i) a.layers[i].rope = (rotated.empty() ? (i + 1) % interval != 0 : rotated[i] != 0) ? 0 : -1;
  const int64_t window = f.integer({"sliding_window"}, 0);
  f.without_effect({"max_window_layers"});
  // Otherwise layer_types stays unread: nothing but full attention is understood.
  if (f.boolean("use_sliding_window", false) && window > 0) set_layer_windows(f, a, window, [&](int64_t i) { return a.layers[i].rope < 0; });
}

// --- HunYuan: norms of queries and keys behind the rotation

}  // namespace

NameTable with_hunyuan_norms(NameTable n) {
  n.q_norm = "self_attn.query_layernorm", n.k_norm = "self_attn.key_layernorm";
  return n;
}

void hunyuan_like(const ConfigFields& f, Architecture& a, int64_t kv_heads) {
  RopeDefaults rope = whole_rotation();
  rope.alpha = true;
  llama_like(f, a, kv_heads, rope);
  a.norm_eps = f.real({"rms_norm_eps"}, 1e-5);
  a.qkv_bias = a.o_bias = f.boolean("attention_bias", false);
  a.head_norm = HeadNorm::rms;
  a.head_norm_after_rope = true;
}

namespace {

void configure_hunyuan(const ConfigFields& f, Architecture& a) {
  f.integer({"head_dim", "attention_head_dim"});
  hunyuan_like(f, a, 32);
}

// --- Ministral 3: queries grow with the position

void configure_ministral3(const ConfigFields& f, Architecture& a) {
  f.integer({"head_dim"});
  llama_like(f, a, 8, whole_rotation(1e6));
  a.norm_eps = f.real({"rms_norm_eps"}, 1e-5);
  set_window(f, a, {});
  if (f.has("layer_types") && a.layers.front().window > 0) f.fail("layer_types", "no such key: all layers have the sliding_window");
  const ConfigFields rope = rope_fields(f);
  PositionScaleOp scale;
  scale.beta = rope.real({"llama_4_scaling_beta"});
  scale.context = rope.integer({"original_max_position_embeddings"});
  for (LayerSpec& layer : a.layers) layer.query_scale = scale;
}

std::string translate_mistral3(GgufTranslator& t) {
  t.integer("attention.sliding_window", "sliding_window");
  if (t.integer_of("attention.sliding_window").value_or(0) == 0) t.set("sliding_window", nullptr);
  if (!t.real_of("attention.temperature_scale")) return "mistral";
  t.real("attention.temperature_scale", "rope_scaling.llama_4_scaling_beta");
  return "";
}

void describe_mistral3(GgufDescriber& d) {
  d.sliding_window();
  if (const PositionScaleOp& scale = d.a.layers.front().query_scale; scale.beta != 0) d.real("attention.temperature_scale", scale.beta);
}

// --- MiniCPM: a Granite whose scales depend on its size

void configure_minicpm(const ConfigFields& f, Architecture& a) {
  llama_like(f, a, 0, whole_rotation());
  a.qkv_bias = a.o_bias = f.boolean("attention_bias", false);
  a.embedding_scale = f.real({"scale_emb"});
  a.residual_scale = f.real({"scale_depth"}) / std::sqrt(static_cast<double>(a.blocks));
  a.logit_scale = f.real({"dim_model_base"}) / static_cast<double>(a.hidden_size);
  read_tied(f, a, true);
}

std::string translate_minicpm(GgufTranslator& t) {
  // Files of early 2024 leave out what the first MiniCPM has.
  const double blocks = static_cast<double>(t.integer_of("block_count").value_or(1));
  t.real("embedding_scale", "scale_emb"), t.real("residual_scale", "scale_depth"), t.real("logit_scale", "dim_model_base");
  t.set("scale_emb", t.real_of("embedding_scale").value_or(12));
  t.set("scale_depth", t.real_of("residual_scale").value_or(1.4 / std::sqrt(blocks)) * std::sqrt(blocks));
  t.set("dim_model_base", static_cast<double>(t.hidden()) / t.real_of("logit_scale").value_or(static_cast<double>(t.hidden()) / 256));
  return translate_biases(t);
}

void describe_minicpm(GgufDescriber& d) { d.scales(); }

// --- Baichuan: one matrix for queries, keys and values; the 13B models have ALiBi, the second version a head with rows of length 1

NameTable baichuan_names() {
  NameTable n = llama_names();
  n.q = n.k = n.v = "";
  n.qkv = "self_attn.W_pack";
  return n;
}

void configure_baichuan(const ConfigFields& f, Architecture& a) {
  read_plain_dimensions(f, a);
  read_intermediate(f, a);
  a.norm_eps = f.real({"rms_norm_eps"}, 1e-6);
  a.activation = read_activation(f, {"hidden_act"}, "silu");
  a.qkv = QkvLayout::concatenated;
  read_tied(f, a, false);
  // What tells the sizes apart: the 13B's code has no max_position_embeddings.
  if (f.has("max_position_embeddings")) {
    read_context(f, a);
    read_rope(f, a, whole_rotation());
  } else {
    a.context_length = f.integer({"model_max_length"}, {}, 1, int64_t{1} << 31);
    a.position = PositionKind::alibi;
  }
  a.normalise_head = a.vocabulary == 125696 || f.json().contains("z_loss_weight");
}

std::string translate_baichuan(GgufTranslator& t) {
  // llama.cpp takes the model of 40 blocks for the 13B.
  if (t.integer_of("block_count") == 40) {
    t.set("model_max_length", t.integer_of("context_length").value_or(0));
    t.forget("max_position_embeddings");
  }
  return "";
}

// --- ChatGLM 2, 3 and 4: a GLM under other names

NameTable chatglm_names() {
  NameTable n;
  n.embedding = "transformer.embedding.word_embeddings", n.final_norm = "transformer.encoder.final_layernorm", n.head = "transformer.output_layer";
  n.block = "transformer.encoder.layers.";
  n.input_norm = "input_layernorm", n.mlp_norm = "post_attention_layernorm";
  n.qkv = "self_attention.query_key_value", n.o = "self_attention.dense";
  n.gate_up = "mlp.dense_h_to_4h", n.down = "mlp.dense_4h_to_h";
  return n;
}

void configure_chatglm(const ConfigFields& f, Architecture& a) {
  // The first ChatGLM is another model under the same name.
  if (!f.has("multi_query_attention")) f.fail("multi_query_attention", "true or false (ChatGLM 2 or later)");
  a.vocabulary = f.integer({"padded_vocab_size", "vocab_size"}, {}, 1, kMaxVocabulary);
  a.hidden_size = a.embedding_size = f.integer({"hidden_size"}, {}, 1, kMaxWidth);
  a.blocks = f.integer({"num_layers", "num_hidden_layers"}, {}, 1, kMaxBlocks);
  a.heads = f.integer({"num_attention_heads"}, {}, 1, kMaxHeads);
  a.head_dim = f.integer({"kv_channels"}, {}, 2, 1 << 14);
  const bool shared = f.boolean("multi_query_attention");
  a.kv_heads = shared ? f.integer({"multi_query_group_num"}, {}, 1, kMaxHeads) : a.heads;
  if (!shared) f.without_effect({"multi_query_group_num"});
  if (a.heads % a.kv_heads != 0) f.fail("multi_query_group_num", fmt::format("a divisor of the {} attention heads", a.heads));
  a.attention_scale = 1 / std::sqrt(static_cast<double>(a.head_dim));
  a.layers.resize(a.blocks);
  a.intermediate_size = f.integer({"ffn_hidden_size"}, {}, 1, kMaxWidth);
  a.context_length = f.integer({"seq_length"}, {}, 1, int64_t{1} << 31);
  a.norm_eps = f.real({"layernorm_epsilon"}, 1e-5);
  a.qkv = shared ? QkvLayout::concatenated : QkvLayout::grouped;
  a.o_bias = a.mlp_bias = f.boolean("add_bias_linear", false);
  const bool own = f.boolean("add_qkv_bias", false);
  a.qkv_bias = own || a.o_bias;
  a.residual_after_norm = f.boolean("apply_residual_connection_post_layernorm", false);
  a.final_norm = f.boolean("post_layer_norm", true);
  a.rope_interleaved = f.boolean("original_rope", true);
  read_tied(f, a, false);
  RopeSpec rope;
  rope.theta = 10000 * f.real({"rope_ratio"}, 1.0);
  rope.dim = a.head_dim / 2;
  if (rope.dim % 2 != 0) f.fail("kv_channels", "a multiple of 4");
  a.ropes = {rope};
}

}  // namespace

std::vector<Family> dense_families() {
  return {
      {"gemma", "Gemma 1", {"gemma"}, {.names = {"gemma"}, .translate = translate_biases}, llama_names(), configure_gemma},
      {"seed_oss", "Seed-OSS", {"seed_oss"}, {.names = {"seed_oss"}, .translate = translate_seed_oss}, llama_names(), configure_seed_oss},
      {"arcee", "Arcee", {"arcee"}, {.names = {"arcee"}, .permuted = true, .translate = translate_biases}, arcee_names(), configure_arcee},
      {"ernie4_5", "ERNIE 4.5", {"ernie4_5"}, {.names = {"ernie4_5"}, .translate = translate_ernie}, llama_names(), configure_ernie,
       {{"compression_ratio", {1}}, {"freq_allocation", {0}}, {"weight_share_add_bias", {}}}},
      {"glm", "GLM", {"glm"}, {.names = {"chatglm"}, .partial_rotation = true, .translate = translate_biases}, glm_names(), configure_glm},
      {"glm4", "GLM-4", {"glm4"}, {.names = {"glm4"}, .partial_rotation = true, .translate = translate_biases}, glm4_names(), configure_glm},
      {"olmo2", "OLMo 2", {"olmo2"}, {.names = {"olmo2"}, .translate = translate_olmo2, .describe = describe_olmo2}, norms_behind(), configure_olmo2},
      {"olmo3", "OLMo 3", {"olmo3"}, {}, norms_behind(), configure_olmo3},
      {"exaone4", "EXAONE 4", {"exaone4"}, {.names = {"exaone4"}, .translate = translate_exaone4, .describe = describe_windows}, norms_behind(), configure_exaone4},
      {"smollm3", "SmolLM3", {"smollm3"}, {.names = {"smollm3"}, .permuted = true, .translate = translate_biases}, llama_names(), configure_smollm3},
      // What the mixture of experts of the same name would say, and numbers of special tokens.
      {"hunyuan_v1_dense", "Hunyuan", {"hunyuan_v1_dense"}, {.names = {"hunyuan-dense"}, .translate = translate_biases}, with_hunyuan_norms(llama_names()), configure_hunyuan,
       {{"num_experts", {1}}, {"num_shared_expert", {1}}, {"moe_topk", {1}}, {"moe_intermediate_size", {}}, {"use_mixed_mlp_moe", {false}}, {"use_cla", {false}},
        {"cla_share_factor", {}}, {"use_qk_norm", {true}}, {"use_rotary_pos_emb", {true}}, {"norm_type", {"rms"}}, {"add_classification_head", {false}},
        {"class_num", {}}, {"pool_type", {}}, {"dense_list", {}}, {"org_vocab_size", {}}, {"mask_init_id", {}}, {"pad_id", {}}, {"im_*", {}}, {"text_*", {}}}},
      {"ministral3", "Ministral 3", {"ministral3"}, {.names = {"mistral3"}, .permuted = true, .translate = translate_mistral3, .describe = describe_mistral3}, llama_names(), configure_ministral3,
       {{"max_position_embeddings", {}}}},
      {"minicpm", "MiniCPM", {"minicpm"}, {.names = {"minicpm"}, .permuted = true, .translate = translate_minicpm, .describe = describe_minicpm}, llama_names(), configure_minicpm, {{"mup_denominator", {}}}},
      {"baichuan", "Baichuan 1/2", {"baichuan"}, {.names = {"baichuan"}, .permuted = true, .equal_heads = true, .kv_heads = "", .translate = translate_baichuan, .split_qkv = true}, baichuan_names(),
       configure_baichuan, {{"z_loss_weight", {}}, {"max_sequence_length", {}}}},
      {"chatglm", "ChatGLM2/3", {"chatglm"}, {}, chatglm_names(), configure_chatglm,
       {{"rmsnorm", {true}}, {"apply_query_key_layer_scaling", {}}, {"attention_softmax_in_fp32", {}}, {"fp32_residual_connection", {}}, {"bias_dropout_fusion", {}},
        {"quantization_bit", {0}}, {"pre_seq_len", {}}, {"prefix_projection", {false}}, {"classifier_dropout", {}}, {"use_rope_scaling", {false}}}},
  };
}

}  // namespace qb
