// A layer's graph from a family's few parameters.
#include <fmt/format.h>

#include "core/model/architecture.h"

namespace qb {
namespace {

void add_norm(std::vector<TensorSpec>& list, const Architecture& a, const std::string& name, const std::string& gguf, int64_t size) {
  if (name.empty() || !a.norm_affine) return;
  list.push_back({name + ".weight", {size}, gguf + ".weight", a.norm == NormKind::rms_plus_one});
  if (a.norm == NormKind::layer) list.push_back({name + ".bias", {size}, gguf + ".bias"});
}

class LayerBuilder {
 public:
  LayerBuilder(const Architecture& a, LayerSpec& layer) : a_(a), n_(a.names), g_(a.gguf), layer_(layer), graph_(layer.graph) {}

  void build() {
    const ValueId x = graph_.input("input", a_.hidden_size);
    const ValueId normed = a_.norm_after ? x : norm(x, n_.input_norm, g_.input_norm);
    ValueId attended = attention(normed);
    if (!n_.post_attention_norm.empty()) attended = norm(attended, n_.post_attention_norm, g_.post_attention_norm);
    ValueId out;
    if (a_.parallel) {
      const ValueId input = n_.mlp_norm.empty() ? normed : norm(x, n_.mlp_norm, g_.mlp_norm);
      out = add(add(mlp(input), attended, 1, "branches"), x, 1, "output");
    } else {
      ValueId middle = add(attended, a_.residual_after_norm ? normed : x, a_.residual_scale, "middle");
      if (a_.norm_after) middle = norm(middle, n_.input_norm, g_.input_norm);
      const ValueId input = a_.norm_after ? middle : norm(middle, n_.mlp_norm, g_.mlp_norm);
      out = mlp(input);
      if (!n_.post_mlp_norm.empty()) out = norm(out, n_.post_mlp_norm, g_.post_mlp_norm);
      out = add(out, a_.residual_after_norm ? input : middle, a_.residual_scale, "output");
      if (a_.norm_after) out = norm(out, n_.mlp_norm, g_.mlp_norm);
    }
    graph_.finish(out);
  }

 private:
  int64_t width(ValueId id) const { return graph_.value(id).width; }

  ValueId norm(ValueId x, const std::string& name, const std::string& gguf) {
    add_norm(layer_.others, a_, name, gguf, a_.hidden_size);
    return graph_.add(NormOp{a_.norm, a_.norm_eps, a_.norm_affine ? name : ""}, {x}, name, a_.hidden_size);
  }

  ValueId add(ValueId a, ValueId b, double scale, const char* name) { return graph_.add(AddOp{scale}, {a, b}, name, width(a)); }

  // One value an entry of `made`: its name and rows.
  std::vector<ValueId> linear(LinearSpec spec, ValueId input, const std::vector<std::pair<std::string, Rows>>& made) {
    LinearOp operation{static_cast<int>(layer_.linears.size()), {}};
    std::vector<std::pair<std::string, int64_t>> outputs;
    for (const auto& [name, rows] : made) {
      operation.outputs.push_back(rows);
      outputs.emplace_back(name, rows.width());
      spec.out = std::max(spec.out, rows.of(rows.width() - 1) + 1);
    }
    spec.in = width(input);
    spec.input = input;
    layer_.linears.push_back(std::move(spec));
    return graph_.add(std::move(operation), {input}, outputs);
  }
  ValueId linear(LinearSpec spec, ValueId input, int64_t out) {
    const std::string name = spec.name;
    return linear(std::move(spec), input, {{name, Rows{1, out, 0, out}}}).front();
  }

  ValueId head_norm(ValueId x, const std::string& name, const std::string& gguf, int64_t heads) {
    if (a_.head_norm == HeadNorm::none) return x;
    if (!a_.head_norm_per_head) {
      layer_.others.push_back({name + ".weight", {a_.head_dim}, gguf + ".weight", a_.norm == NormKind::rms_plus_one});
    } else {
      for (int64_t h = 0; h < heads; ++h)
        layer_.others.push_back({fmt::format("{}.norms.{}.weight", name, h), {a_.head_dim}, gguf + ".weight", false, heads, h});
    }
    const NormKind kind = a_.head_norm == HeadNorm::layer ? NormKind::layer : a_.norm == NormKind::rms_plus_one ? NormKind::rms_plus_one : NormKind::rms;
    return graph_.add(NormOp{kind, a_.norm_eps, name, heads, a_.head_norm_per_head}, {x}, name, width(x));
  }

  ValueId rotary(ValueId x, int64_t heads, const char* name) {
    if (a_.position != PositionKind::rotary) return x;
    return graph_.add(RotaryOp{layer_.rope, heads}, {x}, name, width(x));
  }

  ValueId attention(ValueId x) {
    const int64_t d = a_.head_dim, q_rows = a_.heads * d, kv_rows = a_.kv_heads * d, group = a_.heads / a_.kv_heads;
    ValueId q, k, v;
    if (a_.qkv == QkvLayout::separate) {
      q = linear({.name = n_.q, .subset = "qkv", .bias = a_.qkv_bias, .gguf = g_.q}, x, q_rows);
      k = linear({.name = n_.k, .subset = "qkv", .bias = a_.qkv_bias, .gguf = g_.k}, x, kv_rows);
      v = linear({.name = n_.v, .subset = "qkv", .bias = a_.qkv_bias, .gguf = g_.v}, x, kv_rows);
    } else {
      const int64_t all = q_rows + 2 * kv_rows, stride = (group + 2) * d;
      const bool grouped = a_.qkv == QkvLayout::grouped;
      const auto made = linear({.name = n_.qkv, .subset = "qkv", .bias = a_.qkv_bias, .gguf = g_.qkv, .gguf_parts = {g_.q, g_.k, g_.v}}, x,
                               {{"q", grouped ? Rows{a_.kv_heads, stride, 0, group * d} : Rows{1, all, 0, q_rows}},
                                {"k", grouped ? Rows{a_.kv_heads, stride, group * d, d} : Rows{1, all, q_rows, kv_rows}},
                                {"v", grouped ? Rows{a_.kv_heads, stride, (group + 1) * d, d} : Rows{1, all, q_rows + kv_rows, kv_rows}}});
      q = made[0], k = made[1], v = made[2];
    }
    q = rotary(head_norm(q, n_.q_norm, g_.q_norm, a_.heads), a_.heads, "rotated q");
    k = rotary(head_norm(k, n_.k_norm, g_.k_norm, a_.kv_heads), a_.kv_heads, "rotated k");
    AttentionOp operation;
    operation.heads = a_.heads, operation.kv_heads = a_.kv_heads;
    operation.scale = a_.attention_scale, operation.softcap = a_.attention_softcap;
    operation.window = layer_.window;
    operation.round_alibi = a_.position == PositionKind::alibi_scaled;
    operation.alibi = operation.round_alibi || a_.position == PositionKind::alibi;
    const ValueId context = graph_.add(operation, {q, k, v}, "context", q_rows);
    return linear({.name = n_.o, .subset = "o", .bias = a_.o_bias, .gguf = g_.o}, context, a_.hidden_size);
  }

  // down(act(gate) · up); each spec's subset is its kind of input.
  ValueId gated(LinearSpec gate, LinearSpec up, LinearSpec down, ValueId x, int64_t inner) {
    const std::string product = down.name + " input";
    const ValueId g = linear(std::move(gate), x, inner), u = linear(std::move(up), x, inner);
    return linear(std::move(down), graph_.add(GatedOp{a_.activation}, {g, u}, product, inner), a_.hidden_size);
  }

  ValueId mlp(ValueId x) {
    if (layer_.experts) return mixture(x);
    const int64_t inner = a_.intermediate_size;
    const LinearSpec gate{.name = n_.gate, .subset = "gate_up", .bias = a_.mlp_bias, .gguf = g_.gate}, up{.name = n_.up, .subset = "gate_up", .bias = a_.mlp_bias, .gguf = g_.up};
    const LinearSpec down{.name = n_.down, .subset = "down", .bias = a_.mlp_bias, .gguf = g_.down};
    if (!n_.gate_up.empty()) {
      const auto made = linear({.name = n_.gate_up, .subset = "gate_up", .bias = a_.mlp_bias, .gguf = g_.gate_up, .gguf_parts = {g_.gate, g_.up}}, x,
                               {{"gate", Rows{1, 2 * inner, 0, inner}}, {"up", Rows{1, 2 * inner, inner, inner}}});
      return linear(down, graph_.add(GatedOp{a_.activation}, {made[0], made[1]}, n_.down + " input", inner), a_.hidden_size);
    }
    if (a_.gated) return gated(gate, up, down, x, inner);
    return linear(down, graph_.add(ActivationOp{a_.activation}, {linear(up, x, inner)}, n_.down + " input", inner), a_.hidden_size);
  }

  ValueId mixture(ValueId x) {
    layer_.others.push_back({n_.router + ".weight", {a_.experts, a_.hidden_size}, g_.router + ".weight"});
    const auto choice = graph_.add(RouterOp{n_.router, a_.experts, a_.experts_per_token, a_.normalise_expert_weights}, {x},
                                   {{"expert weights", a_.experts_per_token}, {"experts", a_.experts_per_token}});
    ValueId out = graph_.add(ZeroOp{}, {x}, "no expert", a_.hidden_size);
    const int64_t inner = a_.expert_intermediate_size;
    for (int e = 0; e < a_.experts; ++e) {
      const std::string prefix = fmt::format("{}{}.", n_.expert, e), subset = fmt::format("experts.{}.", e);
      const auto own = graph_.add(DispatchOp{e}, {x, choice[1]}, {{subset + "input", a_.hidden_size}, {subset + "tokens", 2}});
      const ValueId y = gated({.name = prefix + n_.expert_gate, .subset = subset + "gate_up", .gguf = g_.expert_gate, .expert = e, .fused = {"gate_up_proj", 2 * inner, 0}},
                              {.name = prefix + n_.expert_up, .subset = subset + "gate_up", .gguf = g_.expert_up, .expert = e, .fused = {"gate_up_proj", 2 * inner, inner}},
                              {.name = prefix + n_.expert_down, .subset = subset + "down", .gguf = g_.expert_down, .expert = e, .fused = {"down_proj", a_.hidden_size, 0}},
                              own[0], inner);
      out = graph_.add(CombineOp{}, {out, y, own[1], choice[0]}, fmt::format("experts to {}", e), a_.hidden_size);
    }
    if (a_.shared_intermediate_size == 0) return out;
    const ValueId y = gated({.name = n_.shared_gate, .subset = "shared.gate_up", .gguf = g_.shared_gate}, {.name = n_.shared_up, .subset = "shared.gate_up", .gguf = g_.shared_up},
                            {.name = n_.shared_down, .subset = "shared.down", .gguf = g_.shared_down}, x, a_.shared_intermediate_size);
    layer_.others.push_back({n_.shared_router + ".weight", {1, a_.hidden_size}, g_.shared_router + ".weight"});
    return add(out, graph_.add(ShareOp{n_.shared_router}, {y, x}, "share", a_.hidden_size), 1, "mixture");
  }

  const Architecture& a_;
  const NameTable &n_, &g_;
  LayerSpec& layer_;
  LayerGraph& graph_;
};

}  // namespace

void build_layers(Architecture& a) {
  const NameTable &n = a.names, &g = a.gguf;
  a.layers.resize(static_cast<size_t>(a.blocks));
  for (LayerSpec& layer : a.layers) LayerBuilder(a, layer).build();

  a.globals.push_back({n.embedding + ".weight", {a.vocabulary, a.embedding_size}, g.embedding + ".weight"});
  if (a.position == PositionKind::learned) a.globals.push_back({n.positions + ".weight", {a.context_length + a.position_offset, a.hidden_size}, g.positions + ".weight"});
  add_norm(a.globals, a, n.embedding_norm, g.embedding_norm, a.hidden_size);
  if (a.embedding_size != a.hidden_size) {
    a.globals.push_back({n.project_in + ".weight", {a.hidden_size, a.embedding_size}, ""});
    a.globals.push_back({n.project_out + ".weight", {a.embedding_size, a.hidden_size}, ""});
  }
  if (a.final_norm) add_norm(a.globals, a, n.final_norm, g.final_norm, a.hidden_size);
  if (!a.tied_embeddings) a.globals.push_back({n.head + ".weight", {a.vocabulary, a.embedding_size}, g.head + ".weight"});
}

}  // namespace qb
