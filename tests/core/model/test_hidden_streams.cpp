#include <ATen/ATen.h>

#include <QtTest/QtTest>

#include "core/model/hidden_streams.h"
#include "tests/core/engine/tiny_model.h"

class TestHiddenStreams : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void a_tokens_number_is_kept_in_every_type() {
    const at::Tensor ids = at::tensor({int64_t{0}, int64_t{1}, int64_t{255}, int64_t{256}, int64_t{262399}, (int64_t{1} << 27) - 1}, at::kLong);
    for (at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) QVERIFY(at::equal(qb::token_ids(qb::token_digits(ids, type)), ids));
  }

  void a_stream_is_made_as_large_as_the_first() {
    at::manual_seed(1);
    const at::Tensor first = at::randn({5, 64}) * 3, x = at::randn({5, 64}), y = qb::as_large_as(x, first);
    QVERIFY(at::allclose(y.norm(2, 1), first.norm(2, 1)));
    QVERIFY(at::allclose(at::cosine_similarity(x, y, 1), at::ones({5})));
    // Next to nothing is not blown up: a mean square below 1e-5 counts as that.
    const at::Tensor small = at::full({1, 4}, 1e-4);
    QVERIFY(at::allclose(qb::as_large_as(small, at::ones({1, 4})), small / std::sqrt(1e-5)));
  }

  // Of the divergence of predictions, block by block as end-to-end tuning takes them, against differences of two forward passes.
  void gradients_flow_through_all_that_blocks_hand_on() {
    at::manual_seed(2);
    QTemporaryDir folder;
    const auto model = qb::Model::open(qb::testing::write_tiny_gemma3n(folder.path().toStdString() + "/model"));
    qb::Decoder decoder(model, nullptr, at::kFloat);
    const at::Tensor ids = at::randint(96, {2, 24}, at::kLong);
    std::vector<qb::Block> blocks;
    at::Tensor teacher = decoder.embed(ids);
    for (int b = 0; b < 3; ++b) {
      blocks.push_back(decoder.load_block(b));
      teacher = decoder.forward(blocks.back(), teacher);
      for (qb::Linear& linear : blocks.back().linears) linear.weight.add_(at::randn_like(linear.weight), 0.02);
    }
    auto divergence = [&] {
      at::Tensor hidden = decoder.embed(ids);
      for (const qb::Block& block : blocks) hidden = decoder.forward(block, hidden);
      return decoder.divergence(hidden, teacher);
    };
    std::vector<at::Tensor> inputs = {decoder.embed(ids)};
    for (const qb::Block& block : blocks) inputs.push_back(decoder.forward(block, inputs.back()));
    at::Tensor gradient = decoder.divergence(inputs.back(), teacher).second;
    std::vector<std::map<std::string, at::Tensor>> towards(3);
    for (size_t b = 3; b-- > 0;) {
      qb::Block learning = blocks[b];
      for (qb::Linear& linear : learning.linears) linear.weight = linear.weight.clone().requires_grad_(true);
      for (auto& [name, other] : learning.others) other = other.clone().requires_grad_(true);
      const at::Tensor leaf = inputs[b].clone().requires_grad_(true);
      decoder.forward_learning(learning, leaf).backward(gradient);
      gradient = leaf.grad();
      for (qb::Linear& linear : learning.linears) towards[b][linear.info.name] = linear.weight.grad();
      for (auto& [name, other] : learning.others) towards[b][name] = other.grad();
    }
    constexpr double kStep = 5e-3, kNoise = 1e-3;  // of two sums in float32
    for (size_t b = 0; b < 3; ++b)
      for (const auto& [name, by] : towards[b]) {
        qb::Linear* linear = blocks[b].find(name);
        at::Tensor& tensor = linear ? linear->weight : blocks[b].others.at(name);
        const at::Tensor before = tensor, direction = by.sign() * before.abs().mean();
        const double expected = (by.to(at::kDouble) * direction.to(at::kDouble)).sum().item<double>();
        tensor = before + kStep * direction;
        const double up = divergence().first;
        tensor = before - kStep * direction;
        const double slope = (up - divergence().first) / (2 * kStep);
        tensor = before;
        const QString seen = QString("block %1, %2: %3 for %4").arg(b).arg(name.c_str()).arg(expected).arg(slope);
        QVERIFY2(expected > 0 && std::abs(slope - expected) < 0.02 * expected + kNoise, qPrintable(seen));
      }
  }
};

QTEST_APPLESS_MAIN(TestHiddenStreams)
#include "test_hidden_streams.moc"
