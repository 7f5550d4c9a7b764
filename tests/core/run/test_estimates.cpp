// Estimates: what timings of finished runs say of the next one, and where they say that it is a guess.
#include <ATen/Parallel.h>

#include <QtTest/QtTest>
#include <cmath>
#include <fstream>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/resources.h"
#include "core/engine/device.h"
#include "core/run/estimates.h"
#include "core/run/run.h"

using namespace qb;
namespace fs = std::filesystem;

namespace {

// A machine of which all is known: seconds of a run by a formula.
struct Machine {
  double pass = 2e-10, shape = 3e-9, solve = 5e-12, measure = 1e-10, other = 1e-9, load = 1e-6, evaluate = 4e-10;

  double stage(int64_t out, int64_t in) const { return shape * static_cast<double>(out * in) + solve * static_cast<double>(out * in) * static_cast<double>(in); }
  RunTiming run(const std::string& id, RunWork work) const {
    for (RunWork::Shape& s : work.shapes) s.seconds = s.count * stage(s.out_features, s.in_features);
    for (RunWork::Evaluation& e : work.evaluations) e.seconds = e.work * evaluate;
    RunTiming timing{id, "cpu", cpu_name(), "m", "m", at::get_num_threads(), false, work.load * load, work.passes * pass, work.measure * measure, work.other * other, {}};
    timing.work = std::move(work);
    return timing;
  }
  double seconds(const RunWork& work, bool float_known) const {
    double all = work.load * load + work.passes * pass + work.measure * measure + work.other * other;
    for (const RunWork::Shape& s : work.shapes) all += s.count * stage(s.out_features, s.in_features);
    for (const RunWork::Evaluation& e : work.evaluations)
      if (!e.of_float || !float_known) all += e.work * evaluate;
    return all;
  }
};

// Of a model of a given width, on so many tokens.
RunPlan plan(int64_t width, double tokens, const std::string& kind = "gptq", const std::string& conditions = "text") {
  RunPlan plan;
  plan.work.kind = kind;
  plan.work.methods = kind;
  plan.work.shapes = {{width, width, 40, 0}, {3 * width, width, 20, 0}, {width, 3 * width, 10, 0}};
  double weights = 0;
  for (const RunWork::Shape& s : plan.work.shapes) weights += static_cast<double>(s.out_features * s.in_features) * s.count;
  plan.work.load = 1e5 + tokens;
  plan.work.passes = (2 * tokens + 64) * weights;
  plan.work.passes_known = 100 * weights;
  plan.work.measure = 1000 * weights;
  plan.work.other = 300 * weights;
  plan.work.evaluations = {{conditions, "float32", 2000 * weights, 0, false}, {conditions, "float32 float", 2000 * weights, 0, true}};
  return plan;
}

bool near(double found, double expected, double share) { return std::abs(found / expected - 1) <= share; }

}  // namespace

class TestEstimates : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void a_fit_finds_what_measurements_are_made_of() {
    std::vector<std::vector<double>> rows;
    std::vector<double> measured;
    for (double a : {1.0, 2.0, 5.0})
      for (double b : {1.0, 3.0, 11.0}) {
        rows.push_back({a, b, a * b});
        measured.push_back(2 * a + 0.5 * a * b);
      }
    const std::vector<double> found = fit_positive(rows, measured);
    QVERIFY(std::abs(found[0] - 2) < 1e-3 && std::abs(found[1]) < 1e-3 && std::abs(found[2] - 0.5) < 1e-3);
    for (double& value : measured) value = -value;
    for (double value : fit_positive(rows, measured)) QCOMPARE(value, 0.0);  // nothing takes less than no time
    QVERIFY(fit_positive({}, {}).empty());
  }

  void the_second_run_of_a_kind_takes_what_the_first_took() {
    const Machine machine;
    Estimator estimator(Timings({machine.run("1", plan(512, 4096).work)}), "cpu");
    const RunPlan same = plan(512, 4096), longer = plan(512, 32768), wider = plan(1024, 4096);
    const CostEstimate cost = estimator.next(same);
    QVERIFY(!cost.guess);
    QCOMPARE(QString::fromStdString(cost.basis), QStringLiteral("1 run of the kind on this host"));
    QVERIFY(near(cost.seconds(), machine.seconds(same.work, true), 1e-6));  // the float model's figure is there
    QVERIFY(near(estimator.next(longer).seconds(), machine.seconds(longer.work, true), 0.02));
    // Shapes that were never seen: by a fit over those that were.
    QVERIFY(near(estimator.next(wider).seconds(), machine.seconds(wider.work, true), 0.02));
  }

  void a_float_model_and_statistics_are_counted_once() {
    const Machine machine;
    Estimator estimator(Timings({machine.run("1", plan(512, 4096).work)}), "cpu");
    RunPlan other = plan(512, 4096, "gptq", "another text");
    other.work.statistics = "of it";
    const CostEstimate first = estimator.next(other), second = estimator.next(other);
    QVERIFY(near(first.seconds(), machine.seconds(other.work, false), 1e-6));
    QVERIFY(near(first.evaluate_seconds, 2 * second.evaluate_seconds, 1e-6));
    QVERIFY(near(first.quantize_seconds - second.quantize_seconds, machine.pass * (other.work.passes - other.work.passes_known), 1e-3));
  }

  void what_was_not_measured_is_a_guess_and_says_by_what() {
    const Machine machine;
    const RunPlan wanted = plan(512, 4096);
    Estimator empty(Timings(), "cpu");
    QVERIFY(empty.next(wanted).guess && empty.next(wanted).seconds() > 0);
    RunTiming elsewhere = machine.run("1", wanted.work);
    elsewhere.cpu = "another";
    QVERIFY(Estimator(Timings({elsewhere}), "cpu").next(wanted).basis.find("no run on this host yet") != std::string::npos);
    Estimator by_another(Timings({machine.run("1", plan(512, 4096, "awq").work)}), "cpu");
    const CostEstimate guess = by_another.next(wanted);
    QVERIFY(guess.guess);
    QCOMPARE(QString::fromStdString(guess.basis), QStringLiteral("no run of the kind on this host yet: by those of awq"));
    // A run with half of the threads is taken for twice as fast with all.
    RunTiming halved = machine.run("1", wanted.work);
    halved.threads *= 2;
    QVERIFY(near(Estimator(Timings({halved}), "cpu").next(wanted).quantize_seconds, 2 * Estimator(Timings({machine.run("1", wanted.work)}), "cpu").next(wanted).quantize_seconds, 1e-6));
  }

  void finished_runs_are_read_once_and_kept() {
    QTemporaryDir folder;
    const auto workspace = Workspace::open(fs::path(folder.path().toStdString()) / "w");
    Recipe recipe = load_recipe(resource("demo") / "recipes" / "w4.yaml");
    recipe.calibration->sampling.samples = 2;
    recipe.evaluation.front().windows = 1;
    const std::string id = workspace->create_run(recipe);
    const RunReport report = carry_out(*workspace, id, {}, {});
    const Timings timings = Timings::of(*workspace);
    QCOMPARE(timings.runs().size(), size_t{1});
    const RunTiming& run = timings.runs().front();
    QCOMPARE(run.run, id);
    double shapes = 0;
    for (const RunWork::Shape& s : run.work.shapes) shapes += s.count;
    QCOMPARE(shapes, static_cast<double>(report.blocks.size() * report.blocks.front().linears.size()));

    // The plan of the same recipe is the same work, of the same kind.
    RunPlanner planner({}, folder.path().toStdString());
    const RunPlan again = planner.plan(recipe);
    QCOMPARE(again.recipe_hash, report.recipe_hash);
    QCOMPARE(again.model_hash, report.model_hash);
    QCOMPARE(again.work.kind, run.work.kind);
    QVERIFY(near(again.work.passes, run.work.passes, 1e-9) && near(again.work.measure, run.work.measure, 1e-9) && near(again.work.other, run.work.other, 1e-9));
    QCOMPARE(again.work.evaluations.size(), run.work.evaluations.size());
    for (size_t i = 0; i < again.work.evaluations.size(); ++i) {
      QCOMPARE(again.work.evaluations[i].conditions, run.work.evaluations[i].conditions);
      QVERIFY(near(again.work.evaluations[i].work, run.work.evaluations[i].work, 1e-9));
    }
    const double took = report.load_seconds + report.quantize_seconds + report.evaluate_seconds;
    const CostEstimate cost = Estimator(timings, "cpu").next(again);
    QVERIFY(!cost.guess && cost.seconds() > 0.3 * took && cost.seconds() < 1.1 * took);
    QVERIFY(again.disk_bytes > 0 && again.memory_bytes > 1e8 && again.device_bytes == 0);

    // Kept in a file, from which it comes when the run is gone; what is damaged is made again.
    fs::path file;
    for (const auto& entry : fs::directory_iterator(workspace->folder() / "cache"))
      if (entry.path().filename().string().starts_with("timings-")) file = entry.path();
    QVERIFY(!file.empty());
    std::ofstream(file) << "{";
    QCOMPARE(Timings::of(*workspace).runs().size(), size_t{1});
    workspace->remove(id);
    const Timings kept = Timings::of(*workspace);
    QCOMPARE(kept.runs().size(), size_t{1});
    QCOMPARE(kept.runs().front().passes_seconds, run.passes_seconds);
  }
};

int main(int argc, char** argv) {
  QCoreApplication app(argc, argv);
  initialise_compute(0);
  TestEstimates test;
  return QTest::qExec(&test, argc, argv);
}
#include "test_estimates.moc"
