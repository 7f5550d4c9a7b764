// What is derived from a layer's graph: on small graphs built by hand, and on layers of families, with answers worked out by hand.
#include <QtTest/QtTest>
#include <nlohmann/json.hpp>

#include "core/model/families.h"
#include "core/model/layer_graph.h"

namespace {

using Ints = std::vector<int>;
using Rows64 = std::vector<int64_t>;

qb::LinearOp whole(int index, int64_t out) { return {index, {qb::Rows{1, out, 0, out}}}; }

// input → norm → q, k, v → attention of 4 heads on 2, each 2 wide → o → + input.
struct AttentionLayer {
  qb::LayerGraph graph;
  qb::ValueId x, normed, q, k, v, context, out;

  explicit AttentionLayer(bool fused = false, int64_t value_heads = 2) {
    x = graph.input("input", 8);
    normed = graph.add(qb::NormOp{qb::NormKind::rms, 1e-6, "norm"}, {x}, "normed", 8);
    int next = 0;
    if (fused) {  // of each key/value head: two queries, a key, a value
      const auto made = graph.add(qb::LinearOp{next++, {{2, 8, 0, 4}, {2, 8, 4, 2}, {2, 8, 6, 2}}}, {normed}, {{"q", 8}, {"k", 4}, {"v", 4}});
      q = made[0], k = made[1], v = made[2];
    } else {
      q = graph.add(whole(next++, 8), {normed}, "q", 8);
      k = graph.add(whole(next++, 4), {normed}, "k", 4);
      v = graph.add(whole(next++, 2 * value_heads), {normed}, "v", 2 * value_heads);
    }
    const auto turned = graph.add(qb::RotaryOp{0, 4}, {q}, "rotated q", 8);
    qb::AttentionOp attention;
    attention.heads = 4, attention.kv_heads = 2;
    context = graph.add(attention, {turned, k, v}, "context", 8);
    const auto o = graph.add(whole(next, 8), {context}, "o", 8);
    out = graph.add(qb::AddOp{}, {o, x}, "output", 8);
    graph.finish(out);
  }
};

// input → norm → up (and gate) → activation → down → + input.
struct MlpLayer {
  qb::LayerGraph graph;
  qb::ValueId normed, product;
  int up = 0, down = 0;

  MlpLayer(qb::Activation activation, bool gated, bool read_twice = false) {
    const auto x = graph.input("input", 4);
    normed = graph.add(qb::NormOp{qb::NormKind::rms, 1e-6, "norm"}, {x}, "normed", 4);
    qb::ValueId gate = -1;
    if (gated) gate = graph.add(whole(up++, 3), {normed}, "gate", 3);
    const auto u = graph.add(whole(up, 3), {normed}, "up", 3);
    product = gated ? graph.add(qb::GatedOp{activation}, {gate, u}, "product", 3) : graph.add(qb::ActivationOp{activation}, {u}, "product", 3);
    down = up + 1;
    auto y = graph.add(whole(down, 4), {product}, "down", 4);
    if (read_twice) y = graph.add(qb::AddOp{}, {y, graph.add(whole(down + 1, 4), {u}, "again", 4)}, "sum", 4);
    graph.finish(graph.add(qb::AddOp{}, {y, x}, "output", 4));
  }
};

qb::Architecture family(nlohmann::json config) {
  const nlohmann::json common = {{"vocab_size", 32}, {"hidden_size", 16}, {"intermediate_size", 24}, {"num_hidden_layers", 2}, {"num_attention_heads", 4},
                                 {"num_key_value_heads", 2}, {"hidden_act", "silu"}, {"max_position_embeddings", 64}, {"rms_norm_eps", 1e-6}};
  for (const auto& [key, value] : common.items())
    if (!config.contains(key)) config[key] = value;
  for (auto it = config.begin(); it != config.end();) it = it->is_null() ? config.erase(it) : std::next(it);
  return qb::architecture_from_config(qb::ConfigFields(config, "config.json"));
}

qb::ValueId id_of(const qb::LayerGraph& graph, const std::string& name) {
  for (const qb::GraphValue& value : graph.values())
    if (value.name == name) return value.id;
  throw std::logic_error("no value " + name);
}

int index_of(const qb::LayerSpec& layer, const std::string& name) {
  for (size_t i = 0; i < layer.linears.size(); ++i)
    if (layer.linears[i].name == name) return static_cast<int>(i);
  throw std::logic_error("no linear " + name);
}

Ints indices(const qb::LayerSpec& layer, const std::vector<std::string>& names) {
  Ints all;
  for (const std::string& name : names) all.push_back(index_of(layer, name));
  return all;
}

Ints sorted(Ints values) {
  std::sort(values.begin(), values.end());
  return values;
}

Rows64 range(int64_t first, int64_t count) {
  Rows64 rows(static_cast<size_t>(count));
  std::iota(rows.begin(), rows.end(), first);
  return rows;
}

const nlohmann::json kNext = {{"model_type", "qwen3_next"}, {"head_dim", 4}, {"num_experts", 2}, {"num_experts_per_tok", 1}, {"moe_intermediate_size", 8},
                              {"shared_expert_intermediate_size", 8}, {"linear_num_key_heads", 2}, {"linear_num_value_heads", 4}, {"linear_key_head_dim", 4},
                              {"linear_value_head_dim", 4}, {"partial_rotary_factor", 0.5}, {"layer_types", {"linear_attention", "full_attention"}}};

}  // namespace

class TestLayerGraph : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void values_know_their_producer_and_readers() {
    const AttentionLayer layer;
    QCOMPARE(layer.graph.value(layer.normed).readers, (Ints{1, 2, 3}));
    QVERIFY(layer.graph.producer(layer.x) == nullptr);
    QVERIFY(std::holds_alternative<qb::AttentionOp>(layer.graph.producer(layer.context)->kind));
    QCOMPARE(qb::channel_readers(layer.graph, layer.normed).linears, (Ints{0, 1, 2}));
    QCOMPARE(qb::channel_readers(layer.graph, layer.context).linears, (Ints{3}));
    QVERIFY(layer.graph.value(layer.normed).tapped && !layer.graph.value(layer.q).tapped);
    QCOMPARE(layer.graph.linear(2).outputs, (std::vector<qb::ValueId>{layer.v}));
  }

  void a_value_may_be_overwritten_where_nobody_reads_it_afterwards() {
    const AttentionLayer layer;
    const auto& operations = layer.graph.operations();
    QCOMPARE(operations[0].last_use, (std::vector<bool>{false}));  // the sum at the end reads the input again
    QCOMPARE(operations[1].last_use, (std::vector<bool>{false}));
    QCOMPARE(operations[3].last_use, (std::vector<bool>{true}));   // v is the last to read the norm
    QCOMPARE(operations.back().last_use, (std::vector<bool>{true, true}));
    qb::LayerGraph doubled;
    const auto x = doubled.input("input", 2);
    const auto y = doubled.add(qb::ClampOp{1}, {x}, "clamped", 2);
    doubled.finish(doubled.add(qb::MultiplyOp{}, {y, y}, "square", 2));
    QCOMPARE(doubled.operations().back().last_use, (std::vector<bool>{false, true}));
  }

  void a_channel_of_the_context_comes_of_the_values_row_of_its_group() {
    const AttentionLayer apart, fused(true);
    QCOMPARE(qb::channel_source(apart.graph, apart.context).linear, 2);
    QCOMPARE(qb::channel_source(apart.graph, apart.context).rows, (Rows64{0, 1, 0, 1, 2, 3, 2, 3}));
    QCOMPARE(qb::channel_source(fused.graph, fused.context).linear, 0);
    QCOMPARE(qb::channel_source(fused.graph, fused.context).rows, (Rows64{6, 7, 6, 7, 14, 15, 14, 15}));
    QCOMPARE(qb::channel_source(fused.graph, fused.q).rows, (Rows64{0, 1, 2, 3, 8, 9, 10, 11}));
    QCOMPARE(qb::channel_source(apart.graph, apart.normed).linear, -1);  // a norm's weight, not a linear's rows
    QCOMPARE(qb::channel_source(apart.graph, apart.normed).norm->tensor, std::string("norm"));
    QVERIFY(!qb::channel_source(apart.graph, apart.x).exists());
  }

  void nothing_is_folded_through_a_transform_at_run_time() {
    AttentionLayer layer;
    QVERIFY(qb::channel_readers(layer.graph, layer.context).complete);
    layer.graph.rotate_at_run_time(layer.context);
    QVERIFY(!qb::channel_readers(layer.graph, layer.context).complete);
    QCOMPARE(qb::channel_source(layer.graph, layer.context).linear, -1);
    AttentionLayer rotated_values;
    rotated_values.graph.rotate_at_run_time(rotated_values.v);  // what the attention reads is mixed already
    QCOMPARE(qb::channel_source(rotated_values.graph, rotated_values.context).linear, -1);
    MlpLayer mlp(qb::Activation::silu, true);
    mlp.graph.rotate_at_run_time(mlp.product);
    QCOMPARE(qb::channel_source(mlp.graph, mlp.product).linear, -1);
    QVERIFY(!qb::channel_readers(mlp.graph, mlp.product).complete);
    QVERIFY(qb::channel_readers(mlp.graph, mlp.normed).complete);
  }

  void a_factor_passes_what_is_linear_in_it() {
    const auto source = [](const MlpLayer& layer) { return qb::channel_source(layer.graph, layer.product).linear; };
    QCOMPARE(source(MlpLayer(qb::Activation::silu, true)), 1);      // through the up side of any gate
    QCOMPARE(source(MlpLayer(qb::Activation::gelu_tanh, true)), 1);
    QCOMPARE(source(MlpLayer(qb::Activation::clamped_swiglu, true)), -1);  // one more than the factor, and clamped
    QCOMPARE(source(MlpLayer(qb::Activation::relu, false)), 0);     // factors are positive
    const MlpLayer squared(qb::Activation::relu_squared, false);
    QCOMPARE(source(squared), 0);
    QCOMPARE(qb::channel_source(squared.graph, squared.product).power, 2.0);
    QCOMPARE(source(MlpLayer(qb::Activation::relu_squared, true)), 1);
    const MlpLayer gated(qb::Activation::relu_squared, true);
    QCOMPARE(qb::channel_source(gated.graph, gated.product).power, 1.0);  // it is the gate that is squared
    QCOMPARE(source(MlpLayer(qb::Activation::gelu, false)), -1);
    QCOMPARE(source(MlpLayer(qb::Activation::silu, true, true)), -1);  // something else reads up's output
  }

  void scores_are_made_of_queries_and_keys() {
    const AttentionLayer layer, fused(true);
    QVERIFY(qb::makes_scores(layer.graph, 0) && qb::makes_scores(layer.graph, 1) && !qb::makes_scores(layer.graph, 2) && !qb::makes_scores(layer.graph, 3));
    QVERIFY(qb::makes_scores(fused.graph, 0) && !qb::makes_scores(fused.graph, 1));
    QVERIFY(qb::is_context(layer.graph, layer.context) && !qb::is_context(layer.graph, layer.normed) && !qb::is_context(layer.graph, layer.x));
  }

  void a_module_ends_where_all_it_makes_flows_together() {
    const AttentionLayer layer;
    QCOMPARE(qb::module_end(layer.graph, {0, 1, 2}), 3);
    QCOMPARE(qb::module_end(layer.graph, {0}), 3);
    QCOMPARE(qb::module_end(layer.graph, {3}), -1);  // the layer's output
    const MlpLayer mlp(qb::Activation::silu, true);
    QCOMPARE(qb::module_end(mlp.graph, {0, 1}), 2);
    const MlpLayer forked(qb::Activation::silu, true, true);
    QCOMPARE(qb::module_end(forked.graph, {0}), 2);
    QCOMPARE(qb::module_end(forked.graph, {0, 1}), -1);  // up is read by two
  }

  void the_residual_stream_has_readers_behind_norms_and_writers() {
    const AttentionLayer layer;
    const auto stream = qb::residual_stream(layer.graph);
    QCOMPARE(stream.obstacle, std::string());
    QCOMPARE(stream.readers.size(), size_t{1});
    QCOMPARE(stream.readers[0].norm, std::string("norm"));
    QCOMPARE(stream.readers[0].linears, (Ints{0, 1, 2}));
    QCOMPARE(stream.writers, (Ints{3}));
  }

  void obstacles_of_a_rotation_are_found() {
    const auto obstacle = [](const std::function<qb::ValueId(qb::LayerGraph&, qb::ValueId)>& build) {
      qb::LayerGraph graph;
      graph.finish(build(graph, graph.input("input", 4)));
      return qb::residual_stream(graph).obstacle;
    };
    const auto rms = [](const std::string& name, qb::NormKind kind = qb::NormKind::rms) { return qb::NormOp{kind, 1e-6, name}; };
    auto layer = [&](qb::NormOp norm, bool normed_branch, bool read_bare, bool foreign_branch, bool norm_after) {
      return obstacle([&](qb::LayerGraph& graph, qb::ValueId x) {
        const auto input = read_bare ? x : graph.add(norm, {x}, "normed", 4);
        auto branch = graph.add(whole(0, 4), {input}, "branch", 4);
        if (foreign_branch) branch = graph.add(qb::ClampOp{1}, {branch}, "clamped", 4);
        if (normed_branch) branch = graph.add(rms("post"), {branch}, "post", 4);
        auto out = graph.add(qb::AddOp{}, {branch, x}, "sum", 4);
        if (norm_after) out = graph.add(rms("after"), {out}, "after", 4);
        return out;
      });
    };
    QCOMPARE(layer(rms("norm"), false, false, false, false), std::string());
    QCOMPARE(layer(rms("norm", qb::NormKind::rms_plus_one), false, false, false, false), std::string());
    QVERIFY(layer(rms("norm", qb::NormKind::layer), false, false, false, false).find("RMS norms") != std::string::npos);
    QVERIFY(layer(rms(""), false, false, false, false).find("RMS norms with weights") != std::string::npos);
    QVERIFY(layer(rms("norm"), true, false, false, false).find("outputs do not commute") != std::string::npos);
    QVERIFY(layer(rms("norm"), false, true, false, false).find("without a norm") != std::string::npos);
    QVERIFY(layer(rms("norm"), false, false, true, false).find("something else than linears") != std::string::npos);
    QVERIFY(layer(rms("norm"), false, false, false, true).find("after the residual addition") != std::string::npos);
  }

  void llama_is_what_its_equations_say() {
    const qb::Architecture a = family({{"model_type", "llama"}});
    const qb::LayerSpec& layer = a.layers[0];
    const auto stream = qb::residual_stream(layer.graph);
    QCOMPARE(stream.obstacle, std::string());
    QCOMPARE(stream.readers.size(), size_t{2});
    QCOMPARE(stream.readers[0].linears, indices(layer, {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}));
    QCOMPARE(stream.readers[1].norm, std::string("post_attention_layernorm"));
    QCOMPARE(stream.readers[1].linears, indices(layer, {"mlp.gate_proj", "mlp.up_proj"}));
    QCOMPARE(stream.writers, indices(layer, {"self_attn.o_proj", "mlp.down_proj"}));
    const auto values = qb::channel_source(layer.graph, id_of(layer.graph, "context"));
    QCOMPARE(values.linear, index_of(layer, "self_attn.v_proj"));
    QCOMPARE(values.rows, (Rows64{0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7}));
    QCOMPARE(qb::module_end(layer.graph, indices(layer, {"mlp.gate_proj", "mlp.up_proj"})), index_of(layer, "mlp.down_proj"));
  }

  void norms_of_branches_layer_norms_and_norms_after_stop_rotations() {
    QVERIFY(qb::residual_stream(family({{"model_type", "gemma2"}, {"hidden_act", nullptr}, {"head_dim", 4}}).layers[0].graph).obstacle.find("outputs") != std::string::npos);
    QVERIFY(qb::residual_stream(family({{"model_type", "gpt_neox"}, {"hidden_act", "gelu"}, {"num_key_value_heads", nullptr}, {"rms_norm_eps", nullptr}, {"rotary_pct", 0.5}}).layers[0].graph)
                .obstacle.find("RMS norms") != std::string::npos);
  }

  void experts_read_the_norm_and_so_does_the_router() {
    const qb::Architecture a = family({{"model_type", "qwen2_moe"}, {"num_experts", 2}, {"num_experts_per_tok", 1}, {"moe_intermediate_size", 8}, {"shared_expert_intermediate_size", 8}});
    const qb::LayerSpec& layer = a.layers[0];
    const auto readers = qb::channel_readers(layer.graph, id_of(layer.graph, "post_attention_layernorm"));
    QVERIFY(readers.complete);
    QCOMPARE(sorted(readers.linears), sorted(indices(layer, {"mlp.experts.0.gate_proj", "mlp.experts.0.up_proj", "mlp.experts.1.gate_proj", "mlp.experts.1.up_proj",
                                                             "mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj"})));
    QCOMPARE(readers.routers, (std::vector<std::string>{"mlp.gate", "mlp.shared_expert_gate"}));
    // The statistics of the vector: its own, of all tokens, and of each expert's.
    std::set<qb::ValueId> values(readers.values.begin(), readers.values.end());
    QCOMPARE(values, (std::set<qb::ValueId>{id_of(layer.graph, "post_attention_layernorm"), id_of(layer.graph, "experts.0.input"), id_of(layer.graph, "experts.1.input")}));
    const int gate = index_of(layer, "mlp.experts.1.gate_proj"), up = index_of(layer, "mlp.experts.1.up_proj"), down = index_of(layer, "mlp.experts.1.down_proj");
    QCOMPARE(qb::module_end(layer.graph, {gate, up}), down);
    QCOMPARE(qb::module_end(layer.graph, {index_of(layer, "mlp.experts.0.gate_proj"), gate}), -1);
    const auto source = qb::channel_source(layer.graph, layer.linears[static_cast<size_t>(down)].input);
    QCOMPARE(source.linear, up);
    QCOMPARE(source.rows, range(0, 8));
    QCOMPARE(qb::channel_source(layer.graph, id_of(layer.graph, "experts.1.input")).linear, -1);
    const auto stream = qb::residual_stream(layer.graph);
    QCOMPARE(stream.obstacle, std::string());
    QCOMPARE(sorted(stream.writers), sorted(indices(layer, {"self_attn.o_proj", "mlp.experts.0.down_proj", "mlp.experts.1.down_proj", "mlp.shared_expert.down_proj"})));
    QCOMPARE(stream.readers[1].routers, readers.routers);
  }

  void a_gate_of_the_context_lets_factors_of_values_through() {
    const qb::Architecture a = family(kNext);
    const qb::LayerSpec& layer = a.layers[1];
    const auto source = qb::channel_source(layer.graph, id_of(layer.graph, "gated context"));
    QCOMPARE(source.linear, index_of(layer, "self_attn.v_proj"));
    QCOMPARE(source.rows, (Rows64{0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7}));
    QVERIFY(qb::is_context(layer.graph, id_of(layer.graph, "gated context")));
    QVERIFY(qb::makes_scores(layer.graph, index_of(layer, "self_attn.q_proj")));
    // Of each head: its query's rows, then its gate's.
    const auto& outputs = std::get<qb::LinearOp>(layer.graph.linear(index_of(layer, "self_attn.q_proj")).kind).outputs;
    QCOMPARE(outputs[0].of(5), int64_t{9});
    QCOMPARE(outputs[1].of(0), int64_t{4});
    QCOMPARE(layer.linears[static_cast<size_t>(index_of(layer, "self_attn.q_proj"))].out, int64_t{32});
  }

  void a_delta_net_shares_one_input_and_factors_behind_it_are_its_norms() {
    const qb::Architecture a = family(kNext);
    const qb::LayerSpec& layer = a.layers[0];
    const auto stream = qb::residual_stream(layer.graph);
    QCOMPARE(stream.obstacle, std::string());
    QCOMPARE(stream.readers[0].linears, indices(layer, {"linear_attn.in_proj_qkvz", "linear_attn.in_proj_ba"}));
    QCOMPARE(stream.writers[0], index_of(layer, "linear_attn.out_proj"));
    const auto source = qb::channel_source(layer.graph, id_of(layer.graph, "gated delta output"));
    QCOMPARE(source.linear, -1);
    QCOMPARE(source.norm->tensor, std::string("linear_attn.norm"));
    QCOMPARE(source.rows, (Rows64{0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3}));  // four heads share it
    QCOMPARE(qb::module_end(layer.graph, indices(layer, {"linear_attn.in_proj_qkvz", "linear_attn.in_proj_ba"})), index_of(layer, "linear_attn.out_proj"));
    QVERIFY(!qb::makes_scores(layer.graph, index_of(layer, "linear_attn.in_proj_qkvz")));
    QVERIFY(!qb::is_context(layer.graph, id_of(layer.graph, "gated delta output")));
  }

  void a_short_convolution_takes_factors_into_its_gates_rows() {
    const qb::Architecture a = family({{"model_type", "lfm2"}, {"hidden_act", nullptr}, {"rms_norm_eps", nullptr}, {"layer_types", {"conv", "full_attention"}}});
    const qb::LayerSpec& layer = a.layers[0];
    const auto source = qb::channel_source(layer.graph, id_of(layer.graph, "conv output"));
    QCOMPARE(source.linear, index_of(layer, "conv.in_proj"));
    QCOMPARE(source.rows, range(16, 16));  // C stands between B and x
    QCOMPARE(qb::module_end(layer.graph, {index_of(layer, "conv.in_proj")}), index_of(layer, "conv.out_proj"));
    QCOMPARE(qb::residual_stream(layer.graph).obstacle, std::string());
  }

  void streams_are_handed_on_with_keys_and_values() {
    const qb::Architecture a = family({{"model_type", "gemma3n_text"}, {"hidden_act", nullptr}, {"head_dim", 4}, {"num_hidden_layers", 4}, {"num_kv_shared_layers", 2},
                                       {"layer_types", {"sliding_attention", "full_attention", "full_attention", "sliding_attention"}}, {"sliding_window", 8},
                                       {"hidden_size_per_layer_input", 8}, {"laurel_rank", 2}, {"vocab_size_per_layer_input", 32}});
    QCOMPARE(a.hidden_width(), int64_t{4 * 16});
    QCOMPARE(a.carried_width(), int64_t{4 * 16 + 4 + 2 * 2 * 8});
    QCOMPARE(family({{"model_type", "llama"}}).carried_width(), int64_t{16});
    for (const qb::LayerSpec& layer : a.layers) {
      QCOMPARE(layer.graph.value(layer.graph.output()).width, a.carried_width());
      std::set<std::string> names;
      for (const qb::GraphValue& value : layer.graph.values()) names.insert(value.name);
      QCOMPARE(names.size(), layer.graph.values().size());
      // The norm is itself a part of the sum; what the low rank makes is scaled in its rows.
      QVERIFY(!qb::channel_readers(layer.graph, id_of(layer.graph, "input_layernorm")).complete);
      QVERIFY(qb::channel_readers(layer.graph, id_of(layer.graph, "pre_feedforward_layernorm")).complete);
      QCOMPARE(qb::channel_source(layer.graph, id_of(layer.graph, "laurel.linear_left")).linear, index_of(layer, "laurel.linear_left"));
      QCOMPARE(qb::channel_source(layer.graph, id_of(layer.graph, "context")).linear, -1);  // values are normalised
      QCOMPARE(qb::module_end(layer.graph, indices(layer, {"mlp.gate_proj", "mlp.up_proj"})), index_of(layer, "mlp.down_proj"));
      QCOMPARE(qb::module_end(layer.graph, {index_of(layer, "mlp.down_proj")}), -1);
      QVERIFY(!qb::residual_stream(layer.graph).obstacle.empty());
      QVERIFY(qb::makes_scores(layer.graph, index_of(layer, "self_attn.q_proj")));
      QVERIFY(!qb::makes_scores(layer.graph, index_of(layer, "per_layer_projection")));
    }
    // Of the layers that see all and of those with a window each, the last that makes its own hands them on.
    const auto attention = [&](size_t layer) { return *a.layers[layer].graph.producer(id_of(a.layers[layer].graph, "context")); };
    const auto carried = [&](size_t layer, size_t part) { return a.layers[layer].graph.operations().front().outputs[part]; };
    const auto handed = [&](size_t layer, size_t part) { return a.layers[layer].graph.producer(a.layers[layer].graph.output())->inputs[part]; };
    QCOMPARE(attention(2).inputs[1], carried(2, 5));
    QCOMPARE(attention(2).inputs[2], carried(2, 6));
    QCOMPARE(attention(3).inputs[1], carried(3, 7));
    QCOMPARE(handed(0, 7), attention(0).inputs[1]);
    QCOMPARE(handed(0, 5), carried(0, 5));
    QCOMPARE(handed(1, 6), attention(1).inputs[2]);
    QCOMPARE(handed(1, 8), carried(1, 8));
    QCOMPARE(a.layers[2].linears.size() + 2, a.layers[1].linears.size());
  }
};

QTEST_GUILESS_MAIN(TestLayerGraph)
#include "test_layer_graph.moc"
