#include <ATen/ATen.h>

#include <QtTest/QtTest>

#include "core/base/error.h"
#include "core/engine/collector.h"
#include "core/engine/hidden_states.h"
#include "tests/core/engine/tiny_model.h"

using namespace qb;

namespace {

constexpr Statistics kAll = static_cast<Statistics>(Statistic::gram) | static_cast<Statistics>(Statistic::abs_max) |
                            static_cast<Statistics>(Statistic::mean_abs) | static_cast<Statistics>(Statistic::rows);

// A value that linears read.
GraphValue value_of(ValueId id) {
  GraphValue value;
  value.id = id;
  value.tapped = true;
  return value;
}

}  // namespace

class TestCollector : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void statistics_are_those_of_all_tokens() {
    // 700 columns: the Gram matrix is made of several blocks.
    auto generator = at::detail::createCPUGenerator(3);
    std::vector<at::Tensor> batches = {at::randn({40, 700}, generator), at::randn({25, 700}, generator)};
    Collector collector(kAll, 16, 65);
    const Control control;
    for (const at::Tensor& x : batches) {
      QVERIFY(collector.tap(control)(value_of(3), x).is_same(x));
    }
    const auto statistics = collector.take();
    const ValueStatistics& s = statistics.at(3);
    const at::Tensor all = at::cat(batches).to(at::kDouble);
    QCOMPARE(s.tokens, int64_t{65});
    QVERIFY(at::allclose(s.gram.to(at::kDouble), all.t().matmul(all), 1e-5, 1e-4));
    QVERIFY(at::equal(s.gram, s.gram.t()));
    QVERIFY(at::equal(s.abs_max, all.abs().amax(0).to(at::kFloat)));
    QVERIFY(at::allclose(s.mean_abs.to(at::kDouble), all.abs().mean(0), 1e-5, 1e-6));
    QVERIFY(s.rows.size(0) == 16);
    for (int64_t r = 0; r < 16; ++r) QVERIFY(at::equal(s.rows[r], at::cat(batches)[r * 4]));
  }

  void one_value_seen_twice_at_the_same_address_counts_twice() {
    Collector collector(kAll, 16, 20);
    const Control control;
    const at::Tensor x = at::ones({10, 8});
    for (int pass = 0; pass < 2; ++pass) collector.tap(control)(value_of(1), x);
    QCOMPARE(collector.take().at(1).tokens, int64_t{20});
  }

  void nothing_is_collected_that_nobody_asked_for() {
    Collector collector(static_cast<Statistics>(Statistic::abs_max), 16, 10);
    const Control control;
    collector.tap(control)(value_of(2), at::ones({10, 8}));
    const ValueStatistics s = collector.take().at(2);
    QVERIFY(s.abs_max.defined() && !s.gram.defined() && !s.mean_abs.defined() && !s.rows.defined());
  }

  void what_no_linear_reads_is_not_collected() {
    Collector collector(kAll, 16, 10);
    const Control control;
    GraphValue rotated = value_of(4);
    rotated.tapped = false;
    collector.tap(control)(rotated, at::ones({10, 8}));
    collector.tap(control, ValueId{5})(value_of(6), at::ones({10, 8}));
    QVERIFY(collector.take().empty());
  }

  void samples_of_other_lengths_get_their_own_batches() {
    TokenSet tokens;
    for (int64_t n : {8, 8, 8, 5, 8, 0}) tokens.samples.emplace_back(static_cast<size_t>(n), 1);
    QTemporaryDir folder;
    HiddenStates states(tokens, 4, at::kFloat, 1 << 20, folder.path().toStdString(), 16);
    QCOMPARE(states.batches(), size_t{4});  // 8+8, 8, 5, 8
    QCOMPARE(states.tokens(), int64_t{37});
    QVERIFY((states[0].sizes() == at::IntArrayRef{2, 8, 4}) && (states[2].sizes() == at::IntArrayRef{1, 5, 4}));
  }
};

QTEST_GUILESS_MAIN(TestCollector)
#include "test_collector.moc"
