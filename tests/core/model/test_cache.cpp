// Tokens that come piece by piece to a cache of keys and values see what they see in one pass, whatever kind of attention a
// layer has.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <QtTest/QtTest>

#include "core/base/error.h"
#include "core/model/attention.h"
#include "core/model/block_forward.h"
#include "core/model/families.h"

namespace {

constexpr int64_t kHidden = 16, kTokens = 40;

// One Llama-like layer; `change` makes it another.
qb::Architecture architecture(const std::function<void(qb::Architecture&)>& change) {
  qb::Architecture a;
  a.family = "test";
  a.blocks = 1, a.hidden_size = a.embedding_size = kHidden, a.heads = 4, a.kv_heads = 2, a.head_dim = 4, a.intermediate_size = 24, a.vocabulary = 8;
  a.attention_scale = 0.5;
  a.ropes = {qb::RopeSpec{.dim = 4}};
  a.layers.resize(1);
  qb::NameTable& n = a.names;
  n.block = "layers.", n.embedding = "embedding", n.final_norm = "norm", n.head = "head";
  n.input_norm = "input_norm", n.mlp_norm = "mlp_norm", n.q = "q", n.k = "k", n.v = "v", n.o = "o", n.gate = "gate", n.up = "up", n.down = "down";
  change(a);
  qb::build_layers(a);
  return a;
}

qb::Block random_block(const qb::LayerSpec& layer) {
  at::manual_seed(5);
  qb::Block block;
  for (const qb::LinearSpec& spec : layer.linears) {
    qb::Linear linear;
    linear.info.name = spec.name;
    linear.weight = at::randn({spec.out, spec.in}) / std::sqrt(static_cast<double>(spec.in)) * 2;
    block.linears.push_back(std::move(linear));
  }
  for (const qb::TensorSpec& spec : layer.others) block.others.emplace(spec.name, at::randn(spec.shape) * 0.3 + 1);
  return block;
}

struct Layer {
  explicit Layer(const std::function<void(qb::Architecture&)>& change) : a(architecture(change)), block(random_block(a.layers[0])), slopes(qb::alibi_slopes(a.heads)) {}
  at::Tensor run(const at::Tensor& hidden, qb::KeyValueCache* cache = nullptr) {
    const qb::ForwardContext context{.cache = cache};
    return qb::BlockForward(a, block, context, tables, slopes, {}, at::kFloat).run(hidden);
  }
  qb::Architecture a;
  qb::Block block;
  qb::RotaryCache tables;
  at::Tensor slopes;
};

using Change = std::function<void(qb::Architecture&)>;

const std::map<std::string, Change> kKinds = {
    {"full", [](qb::Architecture&) {}},
    {"window", [](qb::Architecture& a) { a.layers[0].window = 7; }},
    {"chunks", [](qb::Architecture& a) { a.layers[0].chunk = 8; }},
    {"soft cap", [](qb::Architecture& a) { a.attention_softcap = 1.5; }},
    {"ALiBi", [](qb::Architecture& a) { a.position = qb::PositionKind::alibi; }},
    {"ALiBi in a window", [](qb::Architecture& a) { a.position = qb::PositionKind::alibi_scaled, a.layers[0].window = 9; }},
    {"sinks", [](qb::Architecture& a) { a.names.sinks = "sinks"; }},
    {"no positions, scaled queries", [](qb::Architecture& a) { a.layers[0].rope = -1, a.layers[0].query_scale = {0.7, 4, 1}; }},
    {"neighbours rotate, in part", [](qb::Architecture& a) { a.rope_interleaved = true, a.ropes[0].dim = 2; }},
    {"gated context", [](qb::Architecture& a) { a.output_gate = true; }},
    {"latent attention", [](qb::Architecture& a) {
       a.layers[0].mixer = qb::Mixer::latent;
       a.latent = {12, 10, 4, 2, 3, 1e-6, false};  // value heads are narrower than key heads
       a.kv_heads = a.heads, a.ropes[0].dim = 2;
       qb::NameTable& n = a.names;
       n.q_a = "q_a", n.q_a_norm = "q_a_norm", n.q_b = "q_b", n.kv_a = "kv_a", n.kv_a_norm = "kv_a_norm", n.kv_b = "kv_b";
     }},
};

}  // namespace

class TestCache : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void pieces_are_the_whole_data() {
    QTest::addColumn<QString>("kind");
    for (const auto& [name, change] : kKinds) QTest::newRow(name.c_str()) << QString::fromStdString(name);
  }
  void pieces_are_the_whole() {
    QFETCH(QString, kind);
    const at::NoGradGuard no_grad;
    Layer layer(kKinds.at(kind.toStdString()));
    const at::Tensor hidden = at::randn({2, kTokens, kHidden}), whole = layer.run(hidden);
    qb::KeyValueCache cache;
    std::vector<at::Tensor> parts;
    int64_t first = 0;
    for (const int64_t count : {int64_t{11}, int64_t{1}, int64_t{1}, int64_t{9}, int64_t{1}, int64_t{17}}) {
      parts.push_back(layer.run(hidden.narrow(1, first, count), &cache));
      first += count;
      QCOMPARE(cache.tokens(0), first);
    }
    QCOMPARE(first, kTokens);
    const double error = (at::cat(parts, 1) - whole).abs().max().item<double>() / whole.abs().max().item<double>();
    QVERIFY2(error < 2e-6, qPrintable(QString::number(error)));
  }

  // Each kind changes what full attention gives, so that the comparison above is of that kind.
  void kinds_differ() {
    const at::NoGradGuard no_grad;
    at::manual_seed(2);
    const at::Tensor hidden = at::randn({1, kTokens, kHidden});
    Layer full(kKinds.at("full"));
    const at::Tensor plain = full.run(hidden);
    for (const auto& [name, change] : kKinds)
      if (name != "full") QVERIFY2((Layer(change).run(hidden) - plain).abs().max().item<double>() > 1e-3, name.c_str());
  }

  void layers_that_keep_a_state_are_refused() {
    const at::NoGradGuard no_grad;
    Layer layer([](qb::Architecture& a) {
      a.layers[0].mixer = qb::Mixer::convolution, a.convolution_kernel = 3;
      a.names.convolution = "conv", a.names.convolution_in = "in", a.names.convolution_out = "out";
    });
    const at::Tensor hidden = at::randn({1, 4, kHidden});
    QCOMPARE(layer.run(hidden).sizes(), hidden.sizes());
    qb::KeyValueCache cache;
    bool refused = false;
    try {
      layer.run(hidden, &cache);
    } catch (const qb::Error& error) {
      refused = std::string(error.what()).find("cache") != std::string::npos;
    }
    QVERIFY(refused);
  }
};

QTEST_GUILESS_MAIN(TestCache)
#include "test_cache.moc"
