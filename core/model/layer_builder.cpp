// A layer's graph from a family's few parameters.
#include <fmt/format.h>

#include <numbers>

#include "core/model/architecture.h"

namespace qb {
namespace {

void add_norm(std::vector<TensorSpec>& list, const Architecture& a, const std::string& name, const std::string& gguf, int64_t size) {
  if (name.empty() || !a.norm_affine) return;
  list.push_back({name + ".weight", {size}, gguf + ".weight", is_plus_one(a.norm)});
  if (is_layer_norm(a.norm) && a.norm_bias) list.push_back({name + ".bias", {size}, gguf + ".bias"});
}

class LayerBuilder {
 public:
  LayerBuilder(const Architecture& a, LayerSpec& layer, int64_t index) : a_(a), n_(a.names), g_(a.gguf), layer_(layer), graph_(layer.graph), index_(index) {}

  void build() {
    const ValueId x = graph_.input("input", a_.carried_width());
    if (a_.streams.count > 1) return build_streams(x);
    const ValueId normed = a_.norm_after ? x : norm(x, n_.input_norm, g_.input_norm);
    const ValueId attended = norm(mixer(normed), n_.post_attention_norm, g_.post_attention_norm);
    ValueId out;
    if (a_.parallel) {
      const ValueId input = n_.mlp_norm.empty() ? normed : norm(x, n_.mlp_norm, g_.mlp_norm);
      out = add(add(mlp(input), attended, 1, "branches"), x, 1, "output");
    } else {
      ValueId middle = add(attended, a_.residual_after_norm ? normed : x, a_.residual_scale, "middle");
      if (a_.norm_after) middle = norm(middle, n_.input_norm, g_.input_norm);
      const ValueId input = a_.norm_after ? middle : norm(middle, n_.mlp_norm, g_.mlp_norm);
      out = norm(mlp(input), n_.post_mlp_norm, g_.post_mlp_norm);
      out = add(out, a_.residual_after_norm ? input : middle, a_.residual_scale, "output");
      if (a_.norm_after) out = norm(out, n_.mlp_norm, g_.mlp_norm);
    }
    graph_.finish(out);
  }

 private:
  // Gemma 3n's layer. Not quantized are the tensors that mix streams, of a few rows or columns each.
  void build_streams(ValueId input) {
    const StreamSpec& s = a_.streams;
    const auto count = static_cast<size_t>(s.count), active = static_cast<size_t>(s.active);
    const int64_t h = a_.hidden_size, kv = a_.kv_heads * a_.head_dim;
    std::vector<std::pair<std::string, int64_t>> parts;
    for (int64_t j = 0; j < s.count; ++j) parts.emplace_back(fmt::format("stream {}", j), h);
    parts.emplace_back("token", kTokenDigits);
    for (int64_t pair = 0; pair < s.kv_pairs; ++pair)
      for (const char* what : {"keys", "values"}) parts.emplace_back(fmt::format("shared {} {}", what, pair), kv);
    const std::vector<ValueId> carried = graph_.add(SplitOp{}, {input}, parts);
    const ValueId token = carried[count];
    shared_.assign(carried.begin() + static_cast<std::ptrdiff_t>(count) + 1, carried.end());
    std::vector<ValueId> streams(carried.begin(), carried.begin() + static_cast<std::ptrdiff_t>(count));
    layer_.others.push_back({"altup.router_norm.weight", {h}, "altup_router_norm.weight"});
    layer_.others.push_back({"altup.modality_router.weight", {s.count, h}, "altup_router.weight"});
    layer_.others.push_back({"altup.prediction_coefs.weight", {s.count * s.count, s.count}, "altup_predict_coef.weight"});
    layer_.others.push_back({"altup.correction_coefs.weight", {s.count, s.count}, "altup_correct_coef.weight"});

    auto mixed = [&](OperationKind kind, std::vector<ValueId> inputs, const char* name) {
      std::vector<std::pair<std::string, int64_t>> outputs;
      for (int64_t j = 0; j < s.count; ++j) outputs.emplace_back(fmt::format("{} {}", name, j), h);
      return graph_.add(std::move(kind), std::move(inputs), outputs);
    };
    streams.push_back(stream_router(streams[active], "altup.prediction_coefs", s.count * s.count, "prediction"));
    std::vector<ValueId> predicted = mixed(PredictOp{}, streams, "predicted");
    const ValueId x = predicted[active];

    const ValueId normed = norm(x, n_.input_norm, g_.input_norm);
    const ValueId low = linear({.name = "laurel.linear_left", .subset = "qkv", .gguf = "laurel_l"}, normed, s.laurel_rank);
    const ValueId back = linear({.name = "laurel.linear_right", .subset = "laurel", .gguf = "laurel_r"}, low, h);
    const ValueId laurel = add(norm(back, "laurel.post_laurel_norm", "laurel_post_norm"), normed, 1, "laurel");
    const ValueId attended = add(norm(attention(normed), n_.post_attention_norm, g_.post_attention_norm), x, 1, "attended");
    const ValueId middle = graph_.add(ScaleOp{std::numbers::sqrt2 / 2}, {add(attended, laurel, 1, "attended and laurel")}, "middle", h);
    const ValueId computed = add(norm(mlp(norm(middle, n_.mlp_norm, g_.mlp_norm)), n_.post_mlp_norm, g_.post_mlp_norm), middle, 1, "computed");

    predicted.push_back(add(x, computed, -1, "innovation"));
    predicted.push_back(stream_router(computed, "altup.correction_coefs", s.count, "correction"));
    std::vector<ValueId> corrected = mixed(CorrectOp{}, predicted, "corrected");

    ValueId first = corrected[active];
    layer_.others.push_back({"altup.correct_output_scale", {h}, "altup_correct_scale.weight"});
    if (s.scale_output) first = graph_.add(ChannelScaleOp{"altup.correct_output_scale"}, {first}, "scaled output", h);
    const ValueId gate = linear({.name = "per_layer_input_gate", .subset = "per_layer_gate", .gguf = "inp_gate"}, first, s.token_width);
    const ValueId of_token = graph_.add(TokenInputOp{index_}, {token}, "token input", s.token_width);
    const ValueId product = graph_.add(GatedOp{a_.activation}, {gate, of_token}, "per_layer_projection input", s.token_width);
    const ValueId added = norm(linear({.name = "per_layer_projection", .subset = "per_layer", .gguf = "proj"}, product, h), "post_per_layer_input_norm", "post_norm");
    for (size_t j = 1; j < count; ++j) corrected[j] = graph_.add(AddOp{}, {corrected[j], added}, fmt::format("output {}", j), h);
    corrected.push_back(token);
    corrected.insert(corrected.end(), shared_.begin(), shared_.end());
    graph_.finish(graph_.add(ConcatenateOp{}, corrected, "output", width(input)));
  }

  ValueId stream_router(ValueId x, const std::string& coefficients, int64_t rows, const std::string& name) {
    const ValueId normed = graph_.add(NormOp{a_.norm, a_.norm_eps, "altup.router_norm"}, {x}, name + " router's input", width(x));
    return graph_.add(StreamRouterOp{"altup.modality_router", coefficients, 1 / static_cast<double>(width(x))}, {normed}, name, rows);
  }

  int64_t width(ValueId id) const { return graph_.value(id).width; }

  // A family without this norm has no name for it.
  ValueId norm(ValueId x, const std::string& name, const std::string& gguf) {
    if (name.empty()) return x;
    add_norm(layer_.others, a_, name, gguf, width(x));
    return graph_.add(NormOp{a_.norm, a_.norm_eps, a_.norm_affine ? name : ""}, {x}, name, width(x));
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
    spec.transposed = a_.transposed_linears && spec.expert < 0;
    layer_.linears.push_back(std::move(spec));
    return graph_.add(std::move(operation), {input}, outputs);
  }
  ValueId linear(LinearSpec spec, ValueId input, int64_t out) {
    const std::string name = spec.name;
    return linear(std::move(spec), input, {{name, Rows{1, out, 0, out}}}).front();
  }

  ValueId head_norm(ValueId x, const std::string& name, const std::string& gguf, int64_t heads) {
    const HeadNorm which = layer_.head_norm == HeadNorm::none ? a_.head_norm : layer_.head_norm;
    if (which == HeadNorm::none) return x;
    NormOp norm{which == HeadNorm::layer ? NormKind::layer : is_plus_one(a_.norm) ? NormKind::rms_plus_one : NormKind::rms, a_.norm_eps, name, heads};
    if (which == HeadNorm::unit) {
      norm.tensor.clear();
      norm.kind = NormKind::rms;
      return graph_.add(norm, {x}, "unit " + graph_.value(x).name, width(x));
    }
    if (which == HeadNorm::whole) {
      norm.heads = 0;
      layer_.others.push_back({name + ".weight", {width(x)}, gguf + ".weight", is_plus_one(a_.norm)});
    } else if (a_.head_norm_per_head) {
      norm.own_tensors = true;
      for (int64_t h = 0; h < heads; ++h)
        layer_.others.push_back({fmt::format("{}.norms.{}.weight", name, h), {a_.head_dim}, gguf + ".weight", false, heads, h});
    } else if (a_.head_norm_stacked) {
      layer_.others.push_back({name + ".weight", {heads, a_.head_dim}, gguf + ".weight"});
    } else {
      layer_.others.push_back({name + ".weight", {a_.head_dim}, gguf + ".weight", is_plus_one(a_.norm)});
      if (a_.head_norm_bias) layer_.others.push_back({name + ".bias", {a_.head_dim}, gguf + ".bias"});
    }
    return graph_.add(norm, {x}, name, width(x));
  }

  ValueId rotary(ValueId x, int64_t heads, const char* name, int64_t first = 0) {
    if (a_.position != PositionKind::rotary || layer_.rope < 0) return x;
    return graph_.add(RotaryOp{layer_.rope, heads, first, a_.rope_interleaved}, {x}, name, width(x));
  }

  ValueId query_scale(ValueId q) {
    return layer_.query_scale.beta == 0 ? q : graph_.add(layer_.query_scale, {q}, "scaled q", width(q));
  }

  ValueId clamped(ValueId x, const char* name) { return a_.qkv_clip == 0 ? x : graph_.add(ClampOp{a_.qkv_clip}, {x}, name, width(x)); }

  AttentionOp attention_op() {
    AttentionOp operation;
    operation.heads = a_.heads, operation.kv_heads = a_.kv_heads;
    operation.scale = layer_.attention_scale > 0 ? layer_.attention_scale : a_.attention_scale;
    operation.softcap = a_.attention_softcap;
    operation.window = layer_.window, operation.chunk = layer_.chunk;
    operation.round_alibi = a_.position == PositionKind::alibi_scaled;
    operation.alibi = operation.round_alibi || a_.position == PositionKind::alibi;
    operation.sinks = n_.sinks;
    if (!n_.sinks.empty()) layer_.others.push_back({n_.sinks, {a_.heads}, g_.sinks});
    return operation;
  }

  ValueId mixer(ValueId x) {
    switch (layer_.mixer) {
      case Mixer::attention: return attention(x);
      case Mixer::latent: return latent_attention(x);
      case Mixer::delta: return delta_net(x);
      case Mixer::convolution: return short_convolution(x);
    }
    return x;
  }

  // Queries of this layer, keys and values of an earlier one.
  ValueId shared_attention(ValueId x) {
    const ValueId made = linear({.name = n_.q, .subset = "qkv", .bias = a_.qkv_bias, .gguf = g_.q}, x, a_.heads * a_.head_dim);
    const ValueId q = rotary(head_norm(made, n_.q_norm, g_.q_norm, a_.heads), a_.heads, "rotated q");
    const auto pair = 2 * static_cast<size_t>(layer_.takes_kv);
    for (const char* suffix : {".weight", ".bias"}) {
      for (const std::string& unused : {n_.k, n_.v, n_.k_norm}) layer_.unread.push_back(unused + suffix);
      for (const std::string& unused : {g_.k, g_.v, g_.k_norm}) layer_.gguf_unread.push_back(unused + suffix);
    }
    const ValueId context = graph_.add(attention_op(), {q, shared_[pair], shared_[pair + 1]}, "context", width(q));
    return linear({.name = n_.o, .subset = "o", .bias = a_.o_bias, .gguf = g_.o}, context, a_.hidden_size);
  }

  ValueId attention(ValueId x) {
    if (layer_.takes_kv >= 0) return shared_attention(x);
    const int64_t d = a_.head_dim, q_rows = a_.heads * d, kv_rows = a_.kv_heads * d, group = a_.heads / a_.kv_heads;
    ValueId q, k, v, gate = -1;
    if (a_.qkv == QkvLayout::separate) {
      if (a_.output_gate) {
        const auto made = linear({.name = n_.q, .subset = "qkv", .bias = a_.qkv_bias, .gguf = g_.q}, x,
                                 {{"q", Rows{a_.heads, 2 * d, 0, d}}, {"output gate", Rows{a_.heads, 2 * d, d, d}}});
        q = made[0], gate = made[1];
      } else {
        q = linear({.name = n_.q, .subset = "qkv", .bias = a_.qkv_bias, .gguf = g_.q}, x, q_rows);
      }
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
    if (!a_.head_norm_after_rope) q = head_norm(q, n_.q_norm, g_.q_norm, a_.heads), k = head_norm(k, n_.k_norm, g_.k_norm, a_.kv_heads);
    q = clamped(q, "clamped q"), k = clamped(k, "clamped k"), v = clamped(v, "clamped v");
    q = rotary(q, a_.heads, "rotated q"), k = rotary(k, a_.kv_heads, "rotated k");
    if (a_.head_norm_after_rope) q = head_norm(q, n_.q_norm, g_.q_norm, a_.heads), k = head_norm(k, n_.k_norm, g_.k_norm, a_.kv_heads);
    if (a_.value_norm) v = graph_.add(NormOp{NormKind::rms, a_.norm_eps, "", a_.kv_heads}, {v}, "unit v", kv_rows);
    if (layer_.hands_kv >= 0) {
      const auto pair = 2 * static_cast<size_t>(layer_.hands_kv);
      shared_[pair] = k, shared_[pair + 1] = v;
    }
    ValueId context = graph_.add(attention_op(), {query_scale(q), k, v}, "context", q_rows);
    if (gate >= 0) context = graph_.add(SigmoidGateOp{}, {context, gate}, "gated context", q_rows);
    return linear({.name = n_.o, .subset = "o", .bias = a_.o_bias, .gguf = g_.o}, context, a_.hidden_size);
  }

  ValueId narrow_norm(ValueId x, const std::string& name, const std::string& gguf) {
    layer_.others.push_back({name + ".weight", {width(x)}, gguf + ".weight"});
    return graph_.add(NormOp{NormKind::rms, a_.latent.norm_eps, name}, {x}, name, width(x));
  }

  ValueId latent_attention(ValueId x) {
    const LatentSpec& l = a_.latent;
    const int64_t dim = l.nope_dim + l.rope_dim;
    ValueId q;
    if (l.q_rank > 0) {
      const ValueId narrow = linear({.name = n_.q_a, .subset = "qkv_a", .bias = l.bias, .gguf = g_.q_a}, x, l.q_rank);
      q = linear({.name = n_.q_b, .subset = "q_b", .gguf = g_.q_b}, narrow_norm(narrow, n_.q_a_norm, g_.q_a_norm), a_.heads * dim);
    } else {
      q = linear({.name = n_.q, .subset = "qkv_a", .gguf = g_.q}, x, a_.heads * dim);
    }
    const auto made = linear({.name = n_.kv_a, .subset = "qkv_a", .bias = l.bias, .gguf = g_.kv_a}, x,
                             {{"latent", Rows{1, l.kv_rank + l.rope_dim, 0, l.kv_rank}}, {"shared k", Rows{1, l.kv_rank + l.rope_dim, l.kv_rank, l.rope_dim}}});
    const int64_t stride = l.nope_dim + l.value_dim;
    const auto wide = linear({.name = n_.kv_b, .subset = "kv_b", .gguf = g_.kv_b}, narrow_norm(made[0], n_.kv_a_norm, g_.kv_a_norm),
                             {{"k", Rows{a_.heads, stride, 0, l.nope_dim}}, {"v", Rows{a_.heads, stride, l.nope_dim, l.value_dim}}});
    q = query_scale(rotary(q, a_.heads, "rotated q", l.nope_dim));
    const ValueId k = graph_.add(JoinOp{a_.heads}, {wide[0], rotary(made[1], 1, "rotated shared k")}, "joined k", a_.heads * dim);
    const ValueId context = graph_.add(attention_op(), {q, k, wide[1]}, "context", a_.heads * l.value_dim);
    return linear({.name = n_.o, .subset = "o", .bias = a_.o_bias, .gguf = g_.o}, context, a_.hidden_size);
  }

  ValueId convolution(ValueId x, int64_t kernel, bool bias, const char* name) {
    layer_.others.push_back({n_.convolution + ".weight", {width(x), 1, kernel}, g_.convolution + ".weight"});
    if (bias) layer_.others.push_back({n_.convolution + ".bias", {width(x)}, g_.convolution + ".bias"});
    return graph_.add(ConvolutionOp{n_.convolution, kernel}, {x}, name, width(x));
  }

  // Qwen3-Next's; one matrix makes q, k, v (and z), another b and a, or each its own.
  ValueId delta_net(ValueId x) {
    const DeltaSpec& s = a_.delta;
    const int64_t q_rows = s.key_heads * s.key_dim, v_rows = s.value_heads * s.value_dim, ratio = s.value_heads / s.key_heads;
    ValueId q, k, v, z, b, a;
    if (!n_.delta_qkvz.empty()) {
      // Of each key head: its query, its key, the values and gates of the heads it serves.
      // GGUF puts q, k and v into one matrix and z into another.
      const int64_t d = s.key_dim, values = ratio * s.value_dim, stride = 2 * d + 2 * values;
      const auto made = linear({.name = n_.delta_qkvz, .subset = "delta", .gguf = g_.delta_qkvz, .gguf_parts = {g_.delta_qkv, "", "", g_.delta_z}}, x,
                               {{"q", Rows{s.key_heads, stride, 0, d}}, {"k", Rows{s.key_heads, stride, d, d}},
                                {"v", Rows{s.key_heads, stride, 2 * d, values}}, {"z", Rows{s.key_heads, stride, 2 * d + values, values}}});
      const auto small = linear({.name = n_.delta_ba, .subset = "delta", .gguf = g_.delta_ba}, x,
                                {{"b", Rows{s.key_heads, 2 * ratio, 0, ratio}}, {"a", Rows{s.key_heads, 2 * ratio, ratio, ratio}}});
      q = made[0], k = made[1], v = made[2], z = made[3], b = small[0], a = small[1];
    } else {
      const int64_t all = 2 * q_rows + v_rows;
      const auto made = linear({.name = n_.delta_qkv, .subset = "delta", .gguf = g_.delta_qkv}, x,
                               {{"q", Rows{1, all, 0, q_rows}}, {"k", Rows{1, all, q_rows, q_rows}}, {"v", Rows{1, all, 2 * q_rows, v_rows}}});
      q = made[0], k = made[1], v = made[2];
      z = linear({.name = n_.delta_z, .subset = "delta", .gguf = g_.delta_z}, x, v_rows);
      b = linear({.name = n_.delta_b, .subset = "delta", .gguf = g_.delta_b}, x, s.value_heads);
      a = linear({.name = n_.delta_a, .subset = "delta", .gguf = g_.delta_a}, x, s.value_heads);
    }
    const ValueId all = graph_.add(ConcatenateOp{}, {q, k, v}, "q, k, v", 2 * q_rows + v_rows);
    const ValueId active = graph_.add(ActivationOp{Activation::silu}, {convolution(all, s.kernel, false, "convolved q, k, v")}, "active q, k, v", width(all));
    const auto parts = graph_.add(SplitOp{}, {active}, {{"delta q", q_rows}, {"delta k", q_rows}, {"delta v", v_rows}});
    layer_.others.push_back({n_.decay, {s.value_heads}, g_.decay});
    layer_.others.push_back({n_.step, {s.value_heads}, g_.step});
    const ValueId out = graph_.add(DeltaRuleOp{s.key_heads, s.value_heads, n_.decay, n_.step}, {parts[0], parts[1], parts[2], b, a}, "delta output", v_rows);
    layer_.others.push_back({n_.delta_norm + ".weight", {s.value_dim}, g_.delta_norm + ".weight"});
    const ValueId normed = graph_.add(NormOp{NormKind::rms, a_.norm_eps, n_.delta_norm, s.value_heads}, {out}, n_.delta_norm, v_rows);
    return linear({.name = n_.delta_out, .subset = "delta_out", .gguf = g_.delta_out}, graph_.add(GatedOp{Activation::silu}, {z, normed}, "gated delta output", v_rows), a_.hidden_size);
  }

  // LFM2's: C · conv(B · x).
  ValueId short_convolution(ValueId x) {
    const int64_t h = a_.hidden_size;
    const auto made = linear({.name = n_.convolution_in, .subset = "conv", .bias = a_.convolution_bias, .gguf = g_.convolution_in}, x,
                             {{"B", Rows{1, 3 * h, 0, h}}, {"C", Rows{1, 3 * h, h, h}}, {"x", Rows{1, 3 * h, 2 * h, h}}});
    const ValueId gated = graph_.add(MultiplyOp{}, {made[0], made[2]}, "B x", h);
    const ValueId product = graph_.add(MultiplyOp{}, {made[1], convolution(gated, a_.convolution_kernel, a_.convolution_bias, "convolved B x")}, "conv output", h);
    return linear({.name = n_.convolution_out, .subset = "conv_out", .bias = a_.convolution_bias, .gguf = g_.convolution_out}, product, h);
  }

  // down(act(gate) · up); each spec's subset is its kind of input.
  ValueId gated(LinearSpec gate, LinearSpec up, LinearSpec down, ValueId x, int64_t inner) {
    const std::string product = down.name + " input";
    ValueId g = linear(std::move(gate), x, inner);
    const ValueId u = linear(std::move(up), x, inner);
    if (layer_.gate_deviations) g = graph_.add(SparseGateOp{*layer_.gate_deviations}, {g}, "sparse gate", inner);
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

  // Where Hugging Face may keep an expert's matrix in a tensor of all: under transformers' names, or a family's own.
  FusedExpert fused(const std::string& own, const char* name, int64_t rows, int64_t first) const {
    FusedExpert f{{n_.expert + name, std::string("mlp.experts.") + name}, rows, first, 1, a_.experts_transposed};
    if (!own.empty()) f.tensors.push_back(own);
    return f;
  }

  ValueId mixture(ValueId x) {
    // transformers 5 may keep a router and its bias under the names of its modules.
    layer_.others.push_back({n_.router + ".weight", {a_.experts, a_.hidden_size}, g_.router + ".weight", false, 0, 0,
                             {"mlp.gate.weight", "mlp.router.weight", "block_sparse_moe.router.weight"}});
    if (a_.router_bias) layer_.others.push_back({n_.router + ".bias", {a_.experts}, g_.router + ".bias"});
    RouterOp router = a_.router;
    router.tensor = n_.router;
    router.experts = a_.experts, router.per_token = a_.experts_per_token, router.normalise = a_.normalise_expert_weights;
    router.choice_bias = n_.choice_bias;
    if (!n_.choice_bias.empty())
      layer_.others.push_back({.name = n_.choice_bias, .shape = {a_.experts}, .gguf = g_.choice_bias,
                               .aliases = {"mlp.e_score_correction_bias", "mlp.gate.moe_statics.e_score_correction_bias"}, .maybe_row = true});
    const auto choice = graph_.add(router, {x}, {{"expert weights", a_.experts_per_token}, {"experts", a_.experts_per_token}});
    ValueId out = graph_.add(ZeroOp{}, {x}, "no expert", a_.hidden_size);
    const int64_t inner = a_.expert_intermediate_size;
    const FusedExpert both = fused(n_.fused_gate_up, "gate_up_proj", 2 * inner, 0), down = fused(n_.fused_down, "down_proj", a_.hidden_size, 0);
    FusedExpert gate = both, up = both;
    gate.row_step = up.row_step = a_.experts_interleaved ? 2 : 1;
    up.first_row = a_.experts_interleaved ? 1 : inner;
    for (int e = 0; e < a_.experts; ++e) {
      const std::string prefix = fmt::format("{}{}.", n_.expert, e), subset = fmt::format("experts.{}.", e);
      const auto own = graph_.add(DispatchOp{e, a_.weigh_expert_inputs}, {x, choice[1], choice[0]}, {{subset + "input", a_.hidden_size}, {subset + "tokens", 2}});
      const ValueId y = gated({.name = prefix + n_.expert_gate, .subset = subset + "gate_up", .bias = a_.expert_bias, .gguf = g_.expert_gate, .expert = e, .fused = gate},
                              {.name = prefix + n_.expert_up, .subset = subset + "gate_up", .bias = a_.expert_bias, .gguf = g_.expert_up, .expert = e, .fused = up},
                              {.name = prefix + n_.expert_down, .subset = subset + "down", .bias = a_.expert_bias, .gguf = g_.expert_down, .expert = e, .fused = down},
                              own[0], inner);
      out = graph_.add(CombineOp{!a_.weigh_expert_inputs}, {out, y, own[1], choice[0]}, fmt::format("experts to {}", e), a_.hidden_size);
    }
    if (a_.shared_intermediate_size == 0) return out;
    ValueId y = shared_expert(x);
    if (!n_.shared_router.empty()) {
      layer_.others.push_back({n_.shared_router + ".weight", {1, a_.hidden_size}, g_.shared_router + ".weight"});
      y = graph_.add(ShareOp{n_.shared_router}, {y, x}, "share", a_.hidden_size);
    }
    return add(out, y, 1, "mixture");
  }

  ValueId shared_expert(ValueId x) {
    const int64_t inner = a_.shared_intermediate_size;
    const LinearSpec down{.name = n_.shared_down, .subset = "shared.down", .bias = a_.shared_bias, .gguf = g_.shared_down};
    if (!n_.shared_gate_up.empty()) {
      const auto made = linear({.name = n_.shared_gate_up, .subset = "shared.gate_up", .bias = a_.shared_bias, .gguf = g_.shared_gate_up, .gguf_parts = {g_.shared_gate, g_.shared_up}}, x,
                               {{"shared gate", Rows{1, 2 * inner, 0, inner}}, {"shared up", Rows{1, 2 * inner, inner, inner}}});
      return linear(down, graph_.add(GatedOp{a_.activation}, {made[0], made[1]}, n_.shared_down + " input", inner), a_.hidden_size);
    }
    return gated({.name = n_.shared_gate, .subset = "shared.gate_up", .bias = a_.shared_bias, .gguf = g_.shared_gate},
                 {.name = n_.shared_up, .subset = "shared.gate_up", .bias = a_.shared_bias, .gguf = g_.shared_up}, down, x, inner);
  }

  const Architecture& a_;
  const NameTable &n_, &g_;
  LayerSpec& layer_;
  LayerGraph& graph_;
  int64_t index_;
  std::vector<ValueId> shared_;  // keys and values of each pair that blocks hand on, in turn
};

}  // namespace

void build_layers(Architecture& a) {
  const NameTable &n = a.names, &g = a.gguf;
  a.layers.resize(static_cast<size_t>(a.blocks));
  for (int64_t i = 0; i < a.blocks; ++i) LayerBuilder(a, a.layers[static_cast<size_t>(i)], i).build();

  a.globals.push_back({n.embedding + ".weight", {a.embedding_rows > 0 ? a.embedding_rows : a.vocabulary, a.embedding_size}, g.embedding + ".weight"});
  if (a.position == PositionKind::learned) a.globals.push_back({n.positions + ".weight", {a.context_length + a.position_offset, a.hidden_size}, g.positions + ".weight"});
  add_norm(a.globals, a, n.embedding_norm, g.embedding_norm, a.hidden_size);
  if (a.embedding_size != a.hidden_size) {
    a.globals.push_back({n.project_in + ".weight", {a.hidden_size, a.embedding_size}, ""});
    a.globals.push_back({n.project_out + ".weight", {a.embedding_size, a.hidden_size}, ""});
  }
  if (a.final_norm) add_norm(a.globals, a, n.final_norm, g.final_norm, a.hidden_size);
  if (!a.tied_embeddings) a.globals.push_back({n.head + ".weight", {a.vocabulary, a.embedding_size}, g.head + ".weight"});
  if (const StreamSpec& s = a.streams; s.count > 1) {
    const int64_t all = s.token_layers * s.token_width;
    a.globals.push_back({n.token_inputs + ".weight", {s.token_rows, all}, g.token_inputs + ".weight"});
    a.globals.push_back({n.token_projection + ".weight", {all, a.hidden_size}, g.token_projection + ".weight"});
    a.globals.push_back({n.token_norm + ".weight", {s.token_width}, g.token_norm + ".weight"});
    for (int64_t j = 0; j + 1 < s.count; ++j)
      for (const auto& [name, gguf] : {std::pair{n.streams_in, g.streams_in}, {n.streams_out, g.streams_out}})
        a.globals.push_back({fmt::format("{}.{}.weight", name, j), {a.hidden_size, a.hidden_size}, gguf + ".weight", false, s.count - 1, j});
  }
  if (a.head_bias) a.globals.push_back({n.head + ".bias", {a.vocabulary}, g.head + ".bias"});
}

}  // namespace qb
