#include <QtTest>

#include "core/base/error.h"
#include "core/store/pareto.h"

using namespace qb;

namespace {

// A run of this size (MB) with divergences by window.
RunReport run(const std::string& id, std::vector<double> kl, double size, const std::string& model = "m") {
  RunReport report;
  report.id = report.name = id;
  report.status = RunStatus::finished;
  report.model_hash = report.model_name = model;
  report.model_bytes = static_cast<uint64_t>(size * 1e6);
  EvaluationResult result;
  result.evaluator = "divergence";
  result.corpus_hash = "text";
  double mean = 0;
  for (double value : kl) mean += value / static_cast<double>(kl.size());
  result.put({"kl", mean, 0, std::move(kl)});
  report.evaluations.push_back(std::move(result));
  return report;
}

std::vector<const RunReport*> pointers(const std::vector<RunReport>& runs) {
  std::vector<const RunReport*> list;
  for (const RunReport& one : runs) list.push_back(&one);
  return list;
}

std::string front_of(const std::vector<ParetoRun>& runs) {
  std::string names;
  for (const ParetoRun& one : runs)
    if (one.front) names += one.run->id;
  return names;
}

}  // namespace

class TestPareto : public QObject {
  Q_OBJECT
  const std::vector<const RunColumn*> measures_ = parse_run_columns("kl,size");

 private Q_SLOTS:
  void nobody_beats_the_front() {
    const std::vector<RunReport> runs = {run("a", {1, 1, 1}, 10), run("b", {2, 2, 2}, 5), run("c", {3, 3, 3}, 7), run("d", {1.5, 1.5, 1.5}, 10)};
    const auto found = pareto(pointers(runs), measures_);
    QCOMPARE(front_of(found), std::string("ab"));
    QCOMPARE(found[2].beaten_by->id, std::string("b"));
    QCOMPARE(found[3].beaten_by->id, std::string("a"));
    QCOMPARE(found[0].values, (std::vector<double>{1, 10}));
  }

  void a_difference_within_its_paired_error_is_none() {
    // Windows differ far more than runs do: what counts is the difference of each. Of a and b −0.1, 0.1, 0.1, −0.1: nothing.
    const RunReport a = run("a", {1, 5, 2, 9}, 10), b = run("b", {1.1, 4.9, 1.9, 9.1}, 8), c = run("c", {1.01, 5.01, 2.01, 9.011}, 10);
    QCOMPARE(better(a, b, run_column("kl")), 0);
    QCOMPARE(better(a, c, run_column("kl")), -1);  // 0.0103 ± 0.0003
    QCOMPARE(better(c, a, run_column("kl")), 1);
    const std::vector<RunReport> runs = {a, b, c};
    const auto found = pareto(pointers(runs), measures_);
    QCOMPARE(front_of(found), std::string("b"));  // as good as a, and smaller
    QCOMPARE(recommended(found, measures_)->run->id, std::string("b"));
  }

  void the_recommended_run_is_the_best_by_the_first_measure_then_the_next() {
    const std::vector<RunReport> runs = {run("a", {1, 1}, 20), run("b", {1.4, 0.6}, 20.5), run("c", {2, 2}, 5)};
    const auto found = pareto(pointers(runs), measures_);
    QCOMPARE(recommended(found, measures_)->run->id, std::string("a"));
    const auto by_size = parse_run_columns("size,kl");
    QCOMPARE(recommended(pareto(pointers(runs), by_size), by_size)->run->id, std::string("c"));
  }

  void what_is_better_by_being_higher_counts_so() {
    RunReport a = run("a", {1}, 10), b = run("b", {1}, 10);
    for (auto [report, acc] : {std::pair{&a, std::vector<double>{1, 1, 1, 0}}, std::pair{&b, std::vector<double>{0, 0, 0, 0}}}) {
      EvaluationResult task;
      task.evaluator = "task";
      task.put({"acc", acc[0], 0, acc});
      report->evaluations.push_back(task);
    }
    QCOMPARE(better(a, b, run_column("acc")), -1);  // 0.75 ± 0.25
    const std::vector<RunReport> runs = {a, b};
    QCOMPARE(front_of(pareto(pointers(runs), parse_run_columns("acc,size"))), std::string("a"));
  }

  void runs_without_the_figure_or_under_other_conditions_are_left_out() {
    RunReport other = run("o", {0.1, 0.1}, 1), none = run("n", {0.1, 0.1}, 1), damaged = run("d", {std::nan(""), 1}, 1);
    other.evaluations[0].seq_len = 512;
    none.evaluations.clear();
    const std::vector<RunReport> runs = {run("a", {1, 1}, 10), other, none, damaged};
    const auto found = pareto(pointers(runs), measures_);
    QCOMPARE(found.size(), size_t{1});
    QVERIFY(pareto({}, measures_).empty());
    QVERIFY(!recommended({}, measures_));
  }

  void mistakes_are_told() {
    const std::vector<RunReport> runs = {run("a", {1, 1}, 10), run("b", {1, 1}, 10, "another")};
    QVERIFY_EXCEPTION_THROWN(pareto(pointers(runs), measures_), InputError);
    QVERIFY_EXCEPTION_THROWN(pareto({pointers(runs)[0]}, parse_run_columns("kl,name")), InputError);
  }

  // Whatever the runs: one that is not on the front is beaten, one on it is not, and somebody is on it.
  void the_front_is_what_its_definition_says() {
    uint32_t state = 7;
    const auto draw = [&] { return static_cast<double>((state = state * 1664525u + 1013904223u) >> 24) / 256; };
    for (int trial = 0; trial < 200; ++trial) {
      std::vector<RunReport> runs;
      for (int i = 0; i < 8; ++i) runs.push_back(run(std::string(1, static_cast<char>('a' + i)), {1 + draw(), 1 + draw(), 1 + draw()}, 1 + static_cast<int>(draw() * 4)));
      const auto found = pareto(pointers(runs), measures_);
      bool any = false;
      for (size_t i = 0; i < runs.size(); ++i) {
        bool beaten = false;
        for (size_t j = 0; j < runs.size(); ++j) {
          if (i == j) continue;
          const int kl = better(runs[j], runs[i], run_column("kl")), size = better(runs[j], runs[i], run_column("size"));
          beaten = beaten || (kl <= 0 && size <= 0 && kl + size < 0);
        }
        QCOMPARE(found[i].front, !beaten);
        any = any || found[i].front;
      }
      QVERIFY(any);
    }
  }
};

QTEST_GUILESS_MAIN(TestPareto)
#include "test_pareto.moc"
