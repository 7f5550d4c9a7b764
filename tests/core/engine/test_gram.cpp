#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <QtTest/QtTest>

#include "core/engine/column_sizes.h"
#include "core/engine/gram.h"

using namespace qb;

namespace {

at::Tensor gram_of(const at::Tensor& x, const at::Tensor& before) {
  at::Tensor gram = before.clone();
  add_upper_gram(gram, x);
  return complete_gram(gram);
}

}  // namespace

class TestGram : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void initTestCase() {
    threads_ = at::get_num_threads();
    generator_ = at::detail::createCPUGenerator(7);
  }
  void cleanup() { at::set_num_threads(threads_); }

  // Widths and numbers of tokens that do not fill panels, pairs and blocks, and those that do.
  void a_gram_matrix_is_the_sum_of_exact_products_data() {
    QTest::addColumn<int>("tokens");
    QTest::addColumn<int>("in");
    for (int tokens : {1, 2, 255, 256, 257, 2500})
      for (int in : {1, 15, 48, 50, 129, 576}) QTest::addRow("%d tokens of %d", tokens, in) << tokens << in;
  }
  void a_gram_matrix_is_the_sum_of_exact_products() {
    QFETCH(int, tokens);
    QFETCH(int, in);
    for (const auto dtype : {at::kBFloat16, at::kHalf, at::kFloat}) {
      const at::Tensor x = at::randn({tokens, in}, generator_).to(dtype), wide = x.to(at::kDouble);
      const at::Tensor before = at::ones({in, in});
      const at::Tensor expected = wide.t().matmul(wide) + 1;
      QVERIFY(at::allclose(gram_of(x, before).to(at::kDouble), expected, 1e-5, 2e-5 * std::sqrt(tokens)));
      if (dtype != at::kBFloat16) continue;
      for (const GramKernel& kernel : gram_kernels()) {
        at::Tensor gram = before.clone();
        add_upper_gram(gram, x, kernel);
        QVERIFY2(at::allclose(complete_gram(gram).to(at::kDouble), expected, 1e-5, 2e-5 * std::sqrt(tokens)), kernel.name);
      }
    }
  }

  void rows_may_lie_apart() {
    const at::Tensor wide = at::randn({300, 200}, generator_).to(at::kBFloat16);
    for (const at::Tensor& x : {wide.narrow(1, 3, 100), wide.t().narrow(0, 0, 100)}) {
      const at::Tensor zero = at::zeros({x.size(1), x.size(1)});
      QVERIFY(at::equal(gram_of(x, zero), gram_of(x.contiguous(), zero)));
      QVERIFY(at::equal(column_sizes(x).square_sum, column_sizes(x.contiguous()).square_sum));
    }
  }

  void threads_do_not_change_a_bit() {
    for (const auto dtype : {at::kBFloat16, at::kFloat}) {
      if (dtype == at::kFloat ? !float_gram_kernel() : gram_kernels().empty()) continue;  // a library's
      const at::Tensor x = at::randn({3000, 830}, generator_).to(dtype), zero = at::zeros({830, 830});
      at::set_num_threads(1);
      const at::Tensor one = gram_of(x, zero);
      const ColumnSizes alone = column_sizes(x);
      for (int threads : {2, 3, 7}) {
        at::set_num_threads(threads);
        QVERIFY(at::equal(one, gram_of(x, zero)));
      }
      QVERIFY(at::equal(alone.abs_sum, column_sizes(x).abs_sum) && at::equal(alone.square_sum, column_sizes(x).square_sum));
    }
  }

  void sizes_of_columns_are_those_of_all_tokens() {
    for (const auto dtype : {at::kBFloat16, at::kHalf, at::kFloat}) {
      const at::Tensor x = at::randn({1300, 150}, generator_).to(dtype), size = x.to(at::kDouble).abs();
      const ColumnSizes sizes = column_sizes(x);
      QVERIFY(at::equal(sizes.abs_max.to(at::kDouble), size.amax(0)));
      QVERIFY(at::allclose(sizes.abs_sum.to(at::kDouble), size.sum(0), 1e-5, 0));
      QVERIFY(at::allclose(sizes.square_sum.to(at::kDouble), size.square().sum(0), 1e-5, 0));
    }
  }

  void what_is_no_number_stays_seen() {
    for (const auto dtype : {at::kBFloat16, at::kFloat}) {
      at::Tensor x = at::ones({700, 70}, dtype);
      x[3][5] = std::numeric_limits<double>::quiet_NaN();
      x[690][69] = std::numeric_limits<double>::infinity();
      const ColumnSizes sizes = column_sizes(x);
      for (const at::Tensor& t : {sizes.abs_max, sizes.abs_sum, sizes.square_sum}) {
        QCOMPARE(t.isnan().sum().item<int64_t>(), 1);
        QVERIFY(t[5].isnan().item<bool>() && t[69].isinf().item<bool>());
      }
      QVERIFY(gram_of(x, at::zeros({70, 70}))[5].isnan().all().item<bool>());
    }
  }

 private:
  int threads_ = 1;
  at::Generator generator_;
};

QTEST_GUILESS_MAIN(TestGram)
#include "test_gram.moc"
