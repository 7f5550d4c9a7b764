#include <QtTest/QtTest>

#include "core/measure/paired.h"

namespace {

// Both right, only the first, only the second, neither.
std::pair<std::vector<double>, std::vector<double>> answers(int both, int first, int second, int neither) {
  std::vector<double> a, b;
  auto add = [&](int count, double x, double y) {
    a.insert(a.end(), static_cast<size_t>(count), x);
    b.insert(b.end(), static_cast<size_t>(count), y);
  };
  add(both, 1, 1), add(first, 1, 0), add(second, 0, 1), add(neither, 0, 0);
  return {a, b};
}

bool near(double found, double expected) { return std::abs(found - expected) <= 1e-9 * std::max(1.0, std::abs(expected)); }

}  // namespace

class PairedTest : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  // Two-sided binomials summed by hand: 2·(1 + 10 + 45) / 2¹⁰, and 2·Σ_{i ≤ 3} C(9, i) / 2⁹.
  void few_discordant_items_are_counted_exactly() {
    const auto [a, b] = answers(30, 2, 8, 5);
    const qb::McNemar test = qb::mcnemar(a, b);
    QVERIFY(test.exact);
    QCOMPARE(test.both, 30);
    QCOMPARE(test.only_first, 2);
    QCOMPARE(test.only_second, 8);
    QCOMPARE(test.neither, 5);
    QVERIFY(near(test.p_value, 2.0 * 56 / 1024));
    const auto [c, d] = answers(0, 6, 3, 0);
    QVERIFY(near(qb::mcnemar(c, d).p_value, 2.0 * (1 + 9 + 36 + 84) / 512));
  }

  void nothing_discordant_tells_nothing() {
    const auto [a, b] = answers(4, 0, 0, 4);
    QCOMPARE(qb::mcnemar(a, b).p_value, 1.0);
    const auto [c, d] = answers(0, 5, 5, 0);
    QCOMPARE(qb::mcnemar(c, d).p_value, 1.0);  // twice the tail is more than one
  }

  // (|59 − 16| − 1)² / 75 = 23.52; its upper tail of χ² with one degree of freedom, erfc(√11.76) by Python: 1.23622e-06.
  void many_discordant_items_go_by_chi_square_with_correction() {
    const auto [a, b] = answers(101, 59, 16, 33);
    const qb::McNemar test = qb::mcnemar(a, b);
    QVERIFY(!test.exact);
    QVERIFY(near(test.statistic, 23.52));
    QVERIFY(std::abs(test.p_value / 1.23622e-06 - 1) < 1e-5);
    const auto [c, d] = answers(0, 13, 13, 0);
    QVERIFY(near(qb::mcnemar(c, d).p_value, 1));  // the correction does not go past equality
  }

  // d = 0, 1, −1, 1, 1: mean 0.4, Σ(d − 0.4)² = 3.2, √(3.2 / 4 / 5) = 0.4.
  void difference_has_the_error_of_its_items() {
    const qb::PairedDifference found = qb::paired_difference({1, 0, 1, 0, 0}, {1, 1, 0, 1, 1});
    QCOMPARE(found.items, 5);
    QVERIFY(near(found.difference, 0.4));
    QVERIFY(near(found.standard_error, 0.4));
    const qb::PairedDifference graded = qb::paired_difference({0.5, 2.5}, {1.0, 4.0});
    QVERIFY(near(graded.difference, 1));
    QVERIFY(near(graded.standard_error, 0.5));
  }
};

QTEST_APPLESS_MAIN(PairedTest)
#include "test_paired.moc"
