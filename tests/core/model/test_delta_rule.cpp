// The gated delta rule and the causal convolution against their definitions, token by token in float64.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <QtTest/QtTest>

#include "core/model/delta_rule.h"

namespace {

struct Case {
  at::Tensor q, k, v, b, a, decay, step;
  std::vector<at::Tensor> all() const { return {q, k, v, b, a, decay, step}; }
};

Case random_case(int64_t batch, int64_t seq, int64_t key_heads, int64_t ratio, int64_t key_dim = 8, int64_t value_dim = 12) {
  at::manual_seed(seq * 31 + ratio);
  const int64_t heads = key_heads * ratio;
  return {at::randn({batch, seq, key_heads, key_dim}), at::randn({batch, seq, key_heads, key_dim}), at::randn({batch, seq, heads, value_dim}), at::randn({batch, seq, heads}),
          at::randn({batch, seq, heads}), at::randn({heads}), at::randn({heads})};
}

// S ← e^g·S, δ = β·(v − Sᵀk), S ← S + k·δᵀ, o = Sᵀq for one token after the other.
at::Tensor recurrence(const Case& c) {
  auto wide = [](const at::Tensor& x) { return x.to(at::kDouble); };
  const int64_t seq = c.v.size(1), heads = c.v.size(2), ratio = heads / c.q.size(2), key_dim = c.q.size(3);
  auto unit = [&](const at::Tensor& x) { return wide(x) / (wide(x).square().sum(-1, true) + 1e-6).sqrt(); };
  const at::Tensor q = unit(c.q) / std::sqrt(static_cast<double>(key_dim)), k = unit(c.k), v = wide(c.v), beta = at::sigmoid(wide(c.b));
  const at::Tensor keep = (-wide(c.decay).exp() * at::softplus(wide(c.a) + wide(c.step))).exp();
  std::vector<at::Tensor> of_heads;
  for (int64_t h = 0; h < heads; ++h) {
    at::Tensor state = at::zeros({v.size(0), key_dim, v.size(3)}, at::kDouble);
    std::vector<at::Tensor> tokens;
    for (int64_t t = 0; t < seq; ++t) {
      const at::Tensor kt = k.select(1, t).select(1, h / ratio), qt = q.select(1, t).select(1, h / ratio), vt = v.select(1, t).select(1, h);
      state = state * keep.select(1, t).select(1, h).reshape({-1, 1, 1});
      const at::Tensor change = (vt - at::einsum("bkv,bk->bv", {state, kt})) * beta.select(1, t).select(1, h).unsqueeze(1);
      state = state + kt.unsqueeze(2) * change.unsqueeze(1);
      tokens.push_back(at::einsum("bkv,bk->bv", {state, qt}));
    }
    of_heads.push_back(at::stack(tokens, 1));
  }
  return at::stack(of_heads, 2);
}

at::Tensor ours(const Case& c) { return qb::gated_delta_rule(c.q, c.k, c.v, c.b, c.a, c.decay, c.step); }

double difference(const at::Tensor& found, const at::Tensor& right) {
  return (found.to(at::kDouble) - right).abs().max().item<double>() / right.abs().max().item<double>();
}

}  // namespace

class TestDeltaRule : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void chunks_give_what_the_recurrence_gives_data() {
    QTest::addColumn<int>("seq");
    QTest::addColumn<int>("ratio");
    for (const auto& [seq, ratio] : std::vector<std::pair<int, int>>{{1, 1}, {7, 2}, {63, 1}, {64, 2}, {65, 3}, {128, 1}, {191, 2}})
      QTest::addRow("%d tokens, %d value heads a key head", seq, ratio) << seq << ratio;
  }
  void chunks_give_what_the_recurrence_gives() {
    QFETCH(int, seq);
    QFETCH(int, ratio);
    const Case c = random_case(2, seq, 2, ratio);
    const at::Tensor found = ours(c);
    QCOMPARE(found.sizes(), c.v.sizes());
    QVERIFY2(difference(found, recurrence(c)) < 2e-6, qPrintable(QString::number(difference(found, recurrence(c)))));
  }

  void heads_that_forget_at_once_remember_nothing() {
    Case c = random_case(1, 150, 1, 2);
    c.decay = at::tensor({6.0f, -20.0f});  // one forgets by hundreds of powers of e a token, one never
    const at::Tensor found = ours(c), right = recurrence(c);
    QVERIFY(at::isfinite(found).all().item<bool>());
    QVERIFY(difference(found, right) < 5e-6);
    // Without memory o = (q·k)·β·v of the token itself.
    auto unit = [](const at::Tensor& x) { return x / (x.square().sum(-1, true) + 1e-6).sqrt(); };
    const at::Tensor alone = (unit(c.q) * unit(c.k)).sum(-1) / std::sqrt(8.0) * at::sigmoid(c.b.select(2, 0)).unsqueeze(2);
    QVERIFY(at::allclose(found.select(2, 0), alone.squeeze(2).unsqueeze(2) * c.v.select(2, 0), 1e-4, 1e-5));
  }

  // Decays between tokens late in a chunk are differences of large sums.
  void a_sudden_loss_does_not_blur_what_follows() {
    Case c = random_case(1, 128, 1, 1);
    c.decay = at::zeros({1}), c.step = at::zeros({1});
    c.a.fill_(-4);
    c.a.narrow(1, 3, 20).fill_(400);  // e^−400 a token, twenty times
    QVERIFY2(difference(ours(c), recurrence(c)) < 2e-6, qPrintable(QString::number(difference(ours(c), recurrence(c)))));
  }

  void gradients_are_the_recurrences() {
    Case single = random_case(1, 70, 2, 2);
    Case exact = single;
    at::AutoGradMode gradients(true);
    for (at::Tensor Case::* part : {&Case::q, &Case::k, &Case::v, &Case::b, &Case::a, &Case::decay, &Case::step}) {
      exact.*part = (single.*part).to(at::kDouble).requires_grad_(true);
      single.*part = (single.*part).clone().requires_grad_(true);
    }
    const at::Tensor target = at::randn(single.v.sizes());
    (ours(single) * target).sum().backward();
    (recurrence(exact) * target).sum().backward();
    const auto found = single.all(), right = exact.all();
    for (size_t i = 0; i < found.size(); ++i)
      QVERIFY2(difference(found[i].grad(), right[i].grad()) < 2e-5, qPrintable(QString("input %1: %2").arg(i).arg(difference(found[i].grad(), right[i].grad()))));
  }

  void values_keep_their_dtype() {
    Case c = random_case(1, 66, 2, 1);
    const at::Tensor right = recurrence(c);
    c.v = c.v.to(at::kBFloat16);
    QCOMPARE(ours(c).scalar_type(), at::kBFloat16);
    QVERIFY(difference(ours(c), right) < 0.02);
  }

  void a_convolution_sees_only_tokens_before() {
    at::manual_seed(1);
    for (const int64_t seq : {int64_t{1}, int64_t{2}, int64_t{9}}) {
      const at::Tensor x = at::randn({2, seq, 5}), weight = at::randn({5, 1, 4}), bias = at::randn({5});
      at::Tensor right = at::zeros({2, seq, 5}, at::kDouble);
      for (int64_t t = 0; t < seq; ++t)
        for (int64_t j = 0; j < 4; ++j)
          if (t + j >= 3) right.select(1, t) += x.select(1, t + j - 3).to(at::kDouble) * weight.select(2, j).select(1, 0).to(at::kDouble);
      QVERIFY(difference(qb::causal_convolution(x, weight, {}), right) < 1e-6);
      QVERIFY(difference(qb::causal_convolution(x, weight, bias), right + bias.to(at::kDouble)) < 1e-6);
    }
  }
};

QTEST_GUILESS_MAIN(TestDeltaRule)
#include "test_delta_rule.moc"
