#include "core/model/architecture.h"

#include <fmt/format.h>

namespace qb {
namespace {

void add_norm(std::vector<TensorSpec>& list, const Architecture& a, const std::string& name, int64_t size) {
  if (name.empty() || !a.norm_affine) return;
  list.push_back({name + ".weight", {size}});
  if (a.norm == NormKind::layer) list.push_back({name + ".bias", {size}});
}

void add_head_norms(std::vector<TensorSpec>& list, const Architecture& a, const std::string& name, int64_t heads) {
  if (a.head_norm == HeadNorm::none) return;
  if (!a.head_norm_per_head) {
    list.push_back({name + ".weight", {a.head_dim}});
    return;
  }
  for (int64_t h = 0; h < heads; ++h) list.push_back({fmt::format("{}.norms.{}.weight", name, h), {a.head_dim}});
}

void build_layer(const Architecture& a, LayerSpec& layer) {
  const NameTable& n = a.names;
  const int64_t hidden = a.hidden_size, q = a.heads * a.head_dim, kv = a.kv_heads * a.head_dim;
  auto linear = [&](const std::string& name, LinearRole role, std::string subset, int64_t out, int64_t in, bool bias = false, int expert = -1) {
    layer.linears.push_back({name, role, std::move(subset), out, in, bias, expert});
  };

  add_norm(layer.others, a, n.input_norm, hidden);
  if (a.qkv == QkvLayout::separate) {
    linear(n.q, LinearRole::q, "qkv", q, hidden, a.qkv_bias);
    linear(n.k, LinearRole::k, "qkv", kv, hidden, a.qkv_bias);
    linear(n.v, LinearRole::v, "qkv", kv, hidden, a.qkv_bias);
  } else {
    linear(n.qkv, LinearRole::qkv, "qkv", q + 2 * kv, hidden, a.qkv_bias);
  }
  add_head_norms(layer.others, a, n.q_norm, a.heads);
  add_head_norms(layer.others, a, n.k_norm, a.kv_heads);
  linear(n.o, LinearRole::o, "o", hidden, q, a.o_bias);
  add_norm(layer.others, a, n.post_attention_norm, hidden);
  add_norm(layer.others, a, n.mlp_norm, hidden);

  if (!layer.experts) {
    const int64_t inner = a.intermediate_size;
    if (!n.gate_up.empty()) {
      linear(n.gate_up, LinearRole::gate_up, "gate_up", 2 * inner, hidden, a.mlp_bias);
    } else {
      if (a.gated) linear(n.gate, LinearRole::gate, "gate_up", inner, hidden, a.mlp_bias);
      linear(n.up, LinearRole::up, "gate_up", inner, hidden, a.mlp_bias);
    }
    linear(n.down, LinearRole::down, "down", hidden, inner, a.mlp_bias);
  } else {
    layer.others.push_back({n.router + ".weight", {a.experts, hidden}});
    for (int e = 0; e < a.experts; ++e) {
      const std::string prefix = fmt::format("{}{}.", n.expert, e);
      const int64_t inner = a.expert_intermediate_size;
      linear(prefix + n.expert_gate, LinearRole::expert_gate, fmt::format("experts.{}.gate_up", e), inner, hidden, false, e);
      linear(prefix + n.expert_up, LinearRole::expert_up, fmt::format("experts.{}.gate_up", e), inner, hidden, false, e);
      linear(prefix + n.expert_down, LinearRole::expert_down, fmt::format("experts.{}.down", e), hidden, inner, false, e);
    }
    if (a.shared_intermediate_size > 0) {
      linear(n.shared_gate, LinearRole::shared_gate, "shared.gate_up", a.shared_intermediate_size, hidden);
      linear(n.shared_up, LinearRole::shared_up, "shared.gate_up", a.shared_intermediate_size, hidden);
      linear(n.shared_down, LinearRole::shared_down, "shared.down", hidden, a.shared_intermediate_size);
      layer.others.push_back({n.shared_router + ".weight", {1, hidden}});
    }
  }
  add_norm(layer.others, a, n.post_mlp_norm, hidden);
}

}  // namespace

void build_tensor_lists(Architecture& a) {
  const NameTable& n = a.names;
  a.layers.resize(a.blocks);
  for (LayerSpec& layer : a.layers) build_layer(a, layer);

  a.globals.push_back({n.embedding + ".weight", {a.vocabulary, a.embedding_size}});
  if (a.position == PositionKind::learned) a.globals.push_back({n.positions + ".weight", {a.context_length + a.position_offset, a.hidden_size}});
  add_norm(a.globals, a, n.embedding_norm, a.hidden_size);
  if (a.embedding_size != a.hidden_size) {
    a.globals.push_back({n.project_in + ".weight", {a.hidden_size, a.embedding_size}});
    a.globals.push_back({n.project_out + ".weight", {a.embedding_size, a.hidden_size}});
  }
  if (a.final_norm) add_norm(a.globals, a, n.final_norm, a.hidden_size);
  if (!a.tied_embeddings) a.globals.push_back({n.head + ".weight", {a.vocabulary, a.embedding_size}});
}

std::string_view name_of(Activation activation) {
  switch (activation) {
    case Activation::silu: return "silu";
    case Activation::gelu: return "gelu";
    case Activation::gelu_tanh: return "gelu_tanh";
    case Activation::quick_gelu: return "quick_gelu";
    case Activation::relu: return "relu";
    case Activation::relu_squared: return "relu²";
  }
  return "?";
}

std::string_view name_of(RopeSpec::Kind kind) {
  switch (kind) {
    case RopeSpec::Kind::plain: return "plain";
    case RopeSpec::Kind::linear: return "linear";
    case RopeSpec::Kind::dynamic: return "dynamic";
    case RopeSpec::Kind::llama3: return "llama3";
    case RopeSpec::Kind::yarn: return "yarn";
    case RopeSpec::Kind::longrope: return "longrope";
    case RopeSpec::Kind::divisors: return "divisors";
  }
  return "?";
}

}  // namespace qb
