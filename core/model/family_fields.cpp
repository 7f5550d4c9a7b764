#include "core/model/family_fields.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

namespace qb {

Activation read_activation(const ConfigFields& f, const std::vector<std::string>& keys, std::optional<std::string> fallback) {
  static const std::map<std::string, Activation> known = {
      {"silu", Activation::silu}, {"swish", Activation::silu}, {"gelu", Activation::gelu}, {"gelu_python", Activation::gelu},
      {"gelu_new", Activation::gelu_tanh}, {"gelu_pytorch_tanh", Activation::gelu_tanh}, {"gelu_fast", Activation::gelu_tanh},
      {"quick_gelu", Activation::quick_gelu}, {"relu", Activation::relu}, {"relu2", Activation::relu_squared}};
  const std::string name = f.text(keys, fallback);
  auto it = known.find(name);
  if (it != known.end()) return it->second;
  std::vector<std::string> names;
  for (const auto& [key, value] : known) names.push_back(key);
  f.fail(f.has(keys.front()) ? keys.front() : keys.back(), fmt::format("one of {}", fmt::join(names, ", ")));
}

namespace {

std::vector<std::string> with(std::vector<std::string> keys, const std::string& key) {
  keys.push_back(key);
  return keys;
}

void finish_dimensions(const ConfigFields& f, Architecture& a) {
  if (a.heads % a.kv_heads != 0) f.fail("num_key_value_heads", fmt::format("a divisor of the {} attention heads", a.heads));
  if (a.head_dim == 0) {
    if (a.hidden_size % a.heads != 0)
      f.fail(f.has("n_embed") ? "n_embed" : "hidden_size", fmt::format("a multiple of the {} attention heads, or a head_dim", a.heads));
    a.head_dim = a.hidden_size / a.heads;
  }
  a.embedding_size = a.hidden_size;
  a.attention_scale = 1 / std::sqrt(static_cast<double>(a.head_dim));
  a.layers.resize(a.blocks);
}

void read_sizes(const ConfigFields& f, Architecture& a, const OlderNames& older) {
  a.vocabulary = f.integer({"vocab_size"}, {}, 1, kMaxVocabulary);
  a.hidden_size = f.integer(with(older.hidden_size, "hidden_size"), {}, 1, kMaxWidth);
  a.blocks = f.integer(with(older.blocks, "num_hidden_layers"), {}, 1, kMaxBlocks);
  a.heads = f.integer(with(older.heads, "num_attention_heads"), {}, 1, kMaxHeads);
}

}  // namespace

void read_dimensions(const ConfigFields& f, Architecture& a, int64_t kv_heads) {
  read_sizes(f, a, {});
  std::optional<int64_t> fallback;
  if (kv_heads >= 0) fallback = kv_heads == 0 || f.json().contains("num_key_value_heads") ? a.heads : kv_heads;
  a.kv_heads = f.integer({"num_key_value_heads"}, fallback, 1, kMaxHeads);
  a.head_dim = f.integer({"head_dim"}, 0, 1, 1 << 14);
  finish_dimensions(f, a);
}

void read_plain_dimensions(const ConfigFields& f, Architecture& a, const OlderNames& older) {
  read_sizes(f, a, older);
  a.kv_heads = a.heads;
  finish_dimensions(f, a);
}

void read_intermediate(const ConfigFields& f, Architecture& a) { a.intermediate_size = f.integer({"intermediate_size"}, {}, 1, kMaxWidth); }

void read_context(const ConfigFields& f, Architecture& a) { a.context_length = f.integer({"max_position_embeddings"}, {}, 1, int64_t{1} << 31); }

void read_tied(const ConfigFields& f, Architecture& a, bool fallback) { a.tied_embeddings = f.boolean("tie_word_embeddings", fallback); }

RopeDefaults whole_rotation(double theta) {
  RopeDefaults rope;
  rope.theta = theta;
  rope.fraction_keys.clear();
  return rope;
}

NameTable llama_names() {
  NameTable n;
  n.embedding = "model.embed_tokens";
  n.final_norm = "model.norm";
  n.head = "lm_head";
  n.block = "model.layers.";
  n.input_norm = "input_layernorm";
  n.mlp_norm = "post_attention_layernorm";
  n.q = "self_attn.q_proj", n.k = "self_attn.k_proj", n.v = "self_attn.v_proj", n.o = "self_attn.o_proj";
  n.gate = "mlp.gate_proj", n.up = "mlp.up_proj", n.down = "mlp.down_proj";
  return n;
}

NameTable mixtral_names() {
  NameTable n = llama_names();
  n.router = "block_sparse_moe.gate";
  n.expert = "block_sparse_moe.experts.";
  n.expert_gate = "w1", n.expert_up = "w3", n.expert_down = "w2";
  return n;
}

NameTable qwen3_names() {
  NameTable n = llama_names();
  n.q_norm = "self_attn.q_norm", n.k_norm = "self_attn.k_norm";
  return n;
}

NameTable with_qwen_experts(NameTable n) {
  n.router = "mlp.gate";
  n.expert = "mlp.experts.";
  n.expert_gate = "gate_proj", n.expert_up = "up_proj", n.expert_down = "down_proj";
  return n;
}

void llama_like(const ConfigFields& f, Architecture& a, int64_t kv_heads, const RopeDefaults& rope) {
  read_dimensions(f, a, kv_heads);
  read_intermediate(f, a);
  read_context(f, a);
  a.norm_eps = f.real({"rms_norm_eps"}, 1e-6);
  a.activation = read_activation(f, {"hidden_act"}, "silu");
  read_tied(f, a, false);
  read_rope(f, a, rope);
}

void set_window(const ConfigFields& f, Architecture& a, std::optional<int64_t> missing) {
  // A null is "no window"; a missing key is the family's default.
  const bool stated = f.json().contains("sliding_window");
  const int64_t window = f.integer({"sliding_window"}, stated || !missing ? 0 : *missing, 1, int64_t{1} << 31);
  for (LayerSpec& layer : a.layers) layer.window = window;
}

void set_layer_windows(const ConfigFields& f, Architecture& a, int64_t window, const std::function<bool(int64_t)>& sliding) {
  const auto types = f.texts("layer_types");
  if (f.has("layer_types") && static_cast<int64_t>(types.size()) != a.blocks)
    f.fail("layer_types", fmt::format("one entry for each of the {} blocks", a.blocks));
  for (int64_t i = 0; i < a.blocks; ++i) {
    if (!types.empty() && types[i] != "full_attention" && types[i] != "sliding_attention")
      f.fail("layer_types", "full_attention or sliding_attention for every block");
    const bool slides = types.empty() ? sliding(i) : types[i] == "sliding_attention";
    if (slides && window == 0) f.fail("sliding_window", "a number of tokens, as layer_types has sliding_attention");
    a.layers[i].window = slides ? window : 0;
  }
}

void read_qwen_windows(const ConfigFields& f, Architecture& a) {
  if (!f.boolean("use_sliding_window", false)) return f.without_effect({"sliding_window", "max_window_layers"});
  const int64_t window = f.integer({"sliding_window"}, 4096);
  const int64_t first = f.integer({"max_window_layers"}, 28, 0);
  set_layer_windows(f, a, window, [&](int64_t i) { return i >= first; });
}

void read_experts(const ConfigFields& f, Architecture& a, const std::vector<std::string>& count_keys, int64_t used, const std::string& used_key) {
  a.experts = f.integer(count_keys, {}, 1, kMaxExperts);
  a.experts_per_token = f.integer({used_key}, used > 0 ? std::optional<int64_t>(used) : std::nullopt, 1, kMaxExperts);
  if (a.experts_per_token > a.experts) f.fail(used_key, fmt::format("at most the {} experts", a.experts));
}

}  // namespace qb
