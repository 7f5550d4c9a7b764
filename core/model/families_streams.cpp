#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "core/model/family_fields.h"
#include "core/model/gguf_describer.h"
#include "core/model/gguf_translator.h"

// Gemma 3n's text model: hidden states of several streams, an embedding of each token for each layer, keys and values that layers
// share. Facts as in families.cpp. Linears of a block are quantized as llm-compressor would, but for the few rows that mix streams.
namespace qb {
namespace {

NameTable gemma3n_names() {
  NameTable n = qwen3_names();
  n.post_attention_norm = "post_attention_layernorm", n.mlp_norm = "pre_feedforward_layernorm", n.post_mlp_norm = "post_feedforward_layernorm";
  n.token_inputs = "model.embed_tokens_per_layer", n.token_projection = "model.per_layer_model_projection", n.token_norm = "model.per_layer_projection_norm";
  n.streams_in = "model.altup_projections", n.streams_out = "model.altup_unembed_projections";
  return n;
}

// One for all blocks, or the same for each.
void read_widths(const ConfigFields& f, Architecture& a) {
  if (!f.has("intermediate_size") || !f.json().at("intermediate_size").is_array()) return read_intermediate(f, a);
  const auto widths = f.integers("intermediate_size");
  const bool equal = static_cast<int64_t>(widths.size()) == a.blocks && std::all_of(widths.begin(), widths.end(), [&](int64_t w) { return w == widths.front(); });
  if (!equal || widths.front() < 1 || widths.front() > kMaxWidth) f.fail("intermediate_size", fmt::format("one width, or the same for each of the {} blocks", a.blocks));
  a.intermediate_size = widths.front();
}

// The share of a gate's channels that become zero, one a block.
void read_sparsity(const ConfigFields& f, Architecture& a) {
  constexpr double kUsual = 0.95;
  constexpr int64_t kSparse = 10;
  std::vector<double> shares(static_cast<size_t>(a.blocks), 0.0);
  if (f.has("activation_sparsity_pattern")) {
    shares = f.reals("activation_sparsity_pattern", 0);
    if (static_cast<int64_t>(shares.size()) != a.blocks || std::any_of(shares.begin(), shares.end(), [](double s) { return s >= 1; }))
      f.fail("activation_sparsity_pattern", fmt::format("a share below 1 for each of the {} blocks", a.blocks));
  } else if (a.blocks > kSparse) {
    std::fill_n(shares.begin(), kSparse, kUsual);
  }
  for (size_t i = 0; i < shares.size(); ++i)
    if (shares[i] > 0) a.layers[i].gate_deviations = at::special_ndtri(at::scalar_tensor(shares[i], at::kDouble)).item<double>();
}

// The last layers take keys and values of the last one before them that sees as far.
void share_keys_and_values(const ConfigFields& f, Architecture& a) {
  const int64_t first = a.blocks - f.integer({"num_kv_shared_layers"}, 15, 0);
  if (first == a.blocks) return;
  if (first <= 0) f.fail("num_kv_shared_layers", fmt::format("fewer than the {} blocks", a.blocks));
  a.streams.kv_pairs = 2;
  for (int64_t i = first; i < a.blocks; ++i) {
    LayerSpec& layer = a.layers[static_cast<size_t>(i)];
    layer.takes_kv = layer.window > 0 ? 1 : 0;
    int64_t from = first - 1;
    while (from >= 0 && (a.layers[static_cast<size_t>(from)].window > 0) != (layer.window > 0)) --from;
    if (from < 0) f.fail("num_kv_shared_layers", fmt::format("fewer, so that block {} finds keys and values of a block with the same kind of attention", i));
    a.layers[static_cast<size_t>(from)].hands_kv = layer.takes_kv;
  }
}

void configure_gemma3n(const ConfigFields& f, Architecture& a) {
  f.integer({"head_dim"});
  read_dimensions(f, a, -1);
  read_widths(f, a);
  read_context(f, a);
  a.norm_eps = f.real({"rms_norm_eps"}, 1e-6);
  a.activation = read_activation(f, {"hidden_activation"}, "gelu_pytorch_tanh");
  a.qkv_bias = a.o_bias = f.boolean("attention_bias", false);
  a.embedding_scale = std::sqrt(static_cast<double>(a.hidden_size));
  a.attention_scale = 1;
  a.logit_softcap = f.real({"final_logit_softcapping"}, f.json().contains("final_logit_softcapping") ? 0 : 30);
  a.head_norm = HeadNorm::rms;
  a.value_norm = true;
  read_tied(f, a, true);
  set_layer_windows(f, a, f.integer({"sliding_window"}, f.json().contains("sliding_window") ? 0 : 512), [](int64_t i) { return (i + 1) % 5 != 0; });
  read_rope_per_layer_type(f, a, 1e6, 1e4);
  for (LayerSpec& layer : a.layers) layer.rope = layer.window > 0 ? 1 : 0;
  StreamSpec& s = a.streams;
  s.count = f.integer({"altup_num_inputs"}, 4, 2, 64);
  s.active = f.integer({"altup_active_idx"}, 0, 0, s.count - 1);
  s.scale_output = f.boolean("altup_correct_scale", true);
  s.laurel_rank = f.integer({"laurel_rank"}, 64, 1, kMaxWidth);
  s.token_width = f.integer({"hidden_size_per_layer_input"}, 256, 1, kMaxWidth);
  s.token_rows = f.integer({"vocab_size_per_layer_input"}, 262144, 1, kMaxVocabulary);
  s.token_layers = a.blocks;
  read_sparsity(f, a);
  share_keys_and_values(f, a);
}

std::string translate_gemma3n(GgufTranslator& t) {
  t.set("attention_bias", t.qkv_bias());
  t.window_pattern(5);
  t.real("rope.freq_base_swa", "rope_local_base_freq");
  t.real("final_logit_softcapping", "final_logit_softcapping");
  t.integer("altup.num_inputs", "altup_num_inputs");
  t.integer("altup.active_idx", "altup_active_idx");
  t.integer("embedding_length_per_layer_input", "hidden_size_per_layer_input");
  t.integer("attention.shared_kv_layers", "num_kv_shared_layers");
  if (const TensorInfo* rank = t.file().find("blk.0.laurel_l.weight"); rank && rank->shape.size() == 2) t.set("laurel_rank", rank->shape[0]);
  if (const TensorInfo* rows = t.file().find("per_layer_token_embd.weight"); rows && rows->shape.size() == 2) t.set("vocab_size_per_layer_input", rows->shape[0]);
  // Stored: how many standard deviations above the mean a gate must be.
  const auto deviations = t.reals_of("activation_sparsity_scale");
  std::vector<double> shares;
  for (double d : deviations) shares.push_back(std::erfc(-d * std::numbers::sqrt2 / 2) / 2);
  if (!deviations.empty()) t.set("activation_sparsity_pattern", shares);
  return "";
}

void describe_gemma3n(GgufDescriber& d) {
  const StreamSpec& s = d.a.streams;
  d.integers("feed_forward_length", std::vector<int64_t>(static_cast<size_t>(d.a.blocks), d.a.intermediate_size));  // its converter says it for each
  d.sliding_window();
  d.window_pattern();
  if (d.a.ropes.size() > 1) d.real("rope.freq_base_swa", d.a.ropes[1].theta);
  if (d.a.logit_softcap > 0) d.real("final_logit_softcapping", d.a.logit_softcap);
  d.integer("altup.num_inputs", s.count);
  d.integer("altup.active_idx", s.active);
  d.integer("embedding_length_per_layer_input", s.token_width);
  d.integer("attention.shared_kv_layers", std::count_if(d.a.layers.begin(), d.a.layers.end(), [](const LayerSpec& layer) { return layer.takes_kv >= 0; }));
  // A gate without a limit: as far below the mean as a share of nothing is.
  std::vector<double> deviations;
  for (const LayerSpec& layer : d.a.layers) deviations.push_back(layer.gate_deviations.value_or(-std::numeric_limits<double>::infinity()));
  d.reals("activation_sparsity_scale", deviations);
}

}  // namespace

std::vector<Family> stream_families() {
  // The clip and the learning rate are for training; early configurations have the scale of another Gemma's queries.
  return {{"gemma3n", "Gemma 3n (text)", {"gemma3n_text"}, {.names = {"gemma3n"}, .translate = translate_gemma3n, .describe = describe_gemma3n}, gemma3n_names(), configure_gemma3n,
           {{"altup_coef_clip", {}}, {"altup_lr_multiplier", {}}, {"query_pre_attn_scalar", {}}}}};
}

}  // namespace qb
