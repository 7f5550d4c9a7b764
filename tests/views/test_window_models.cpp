#include <QAbstractItemModelTester>
#include <QSignalSpy>
#include <QtTest/QtTest>

#include "fake_services.h"
#include "views/models/Accuracy.h"
#include "views/models/Format.h"
#include "views/models/LinearErrors.h"
#include "views/models/ModelTree.h"
#include "views/models/RunList.h"

using namespace qb;
using namespace qb::views;

namespace {

ModelPtr model(const std::string& path, int blocks) { return std::make_shared<const ModelInfo>(test::fake_model(path, blocks)); }

int leaves(const QAbstractItemModel& tree, const QModelIndex& parent = {}) {
  int count = 0;
  for (int row = 0; row < tree.rowCount(parent); ++row) {
    const QModelIndex index = tree.index(row, 0, parent);
    count += tree.rowCount(index) ? leaves(tree, index) : index.data(ModelTree::LinearRole).value<LinearKey>().isValid() ? 1 : 0;
  }
  return count;
}

}  // namespace

class TestWindowModels : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void initTestCase() { QLocale::setDefault(QLocale::c()); }

  void the_tree_keeps_a_models_promises_while_models_come_and_go() {
    ModelTree tree;
    QAbstractItemModelTester tester(&tree, QAbstractItemModelTester::FailureReportingMode::QtTest);
    ModelFilter filter;
    filter.setSourceModel(&tree);
    QAbstractItemModelTester filtered(&filter, QAbstractItemModelTester::FailureReportingMode::QtTest);
    tree.put(model("/m/one", 3));
    tree.put(model("/m/two", 30));
    QCOMPARE(leaves(tree), 33 * 4);
    tree.put(model("/m/one", 5));  // opened again, changed on disk
    QCOMPARE(tree.rowCount(), 2);
    QCOMPARE(leaves(tree), 35 * 4);
    tree.put(std::make_shared<const ModelInfo>(test::fake_model("/m/whole", 6, true)));  // with embedding, norms and head
    QCOMPARE(leaves(tree), 41 * 4);
    QCOMPARE(tree.rowCount(tree.index(2, 0)), 1 + 6 + 2);
    const QModelIndex linear = tree.indexOf(2, LinearKey{3, "mlp.up_proj"});
    QCOMPARE(linear.data(ModelTree::TensorRole).toString(), QString("model.layers.3.mlp.up_proj.weight"));
    QCOMPARE(tree.indexOf(2, QString("model.layers.3.input_layernorm.weight")).parent(), linear.parent());
    filter.search("layers.3.input_layernorm");
    QCOMPARE(filter.rowCount(), 1);
    filter.search({});
    tree.removeAt(2);
    tree.removeAt(0);
    QCOMPARE(leaves(tree), 30 * 4);
    tree.removeAt(0);
    QCOMPARE(tree.rowCount(), 0);
  }

  void a_thousand_runs_come_and_go_with_one_signal() {
    Selection selection;
    RunList list(&selection);
    QAbstractItemModelTester tester(&list, QAbstractItemModelTester::FailureReportingMode::QtTest);
    QSignalSpy runs(&selection, &Selection::runsChanged), models(&selection, &Selection::modelsChanged), inserted(&list, &QAbstractItemModel::rowsInserted), removed(&list, &QAbstractItemModel::rowsRemoved);
    const auto report = [](int i) {
      auto run = std::make_shared<RunReport>();
      run->id = run->name = "r" + std::to_string(i);
      run->model_path = i % 2 ? "/m/odd" : "/m/even";
      return RunPtr(run);
    };
    QVector<RunPtr> all;
    for (int i = 0; i < 1000; ++i) all << report(i);
    selection.putRuns(all);
    QCOMPARE(list.rowCount(), 1000);
    QCOMPARE(inserted.size(), 1);
    QVERIFY(runs.size() <= 2 && models.size() == 1);  // the first model is chosen, too
    QCOMPARE(list.index(0, RunList::Name).data().toString(), QString("r999"));
    QCOMPARE(list.rowOf("r999"), 0);
    QCOMPARE(list.rowOf("r0"), 999);
    QSet<QString> looks;  // without a style in the report each has one of its own among its model's
    for (const RunEntry& run : selection.runsOfModel()) looks.insert(QString::number(run.style));
    QCOMPARE(looks.size(), 500);

    selection.setCurrentRun("r500");
    selection.setBaseline("r502");
    runs.clear();
    QSignalSpy current(&selection, &Selection::currentRunChanged), baseline(&selection, &Selection::baselineChanged);
    QStringList gone;
    for (int i = 100; i < 900; ++i) gone << QStringLiteral("r%1").arg(i);
    selection.removeRuns(gone + QStringList{"unknown"});
    QCOMPARE(list.rowCount(), 200);
    QVERIFY(runs.size() == 1 && removed.size() == 1 && current.size() == 1 && baseline.size() == 1);
    QVERIFY(selection.currentRun().isEmpty() && selection.baseline().isEmpty());
    for (const QString& id : QStringList{"r0", "r99", "r900", "r999"}) {
      QVERIFY(selection.find(id));
      QCOMPARE(list.index(list.rowOf(id), RunList::Name).data().toString(), id);
    }
    QVERIFY(!selection.find("r500") && list.rowOf("r500") == -1);
    selection.putRuns({report(5), report(2000)});  // one that is known, one that is new
    QCOMPARE(list.rowCount(), 201);
    QCOMPARE(list.rowOf("r2000"), 0);
    QCOMPARE(list.index(list.rowOf("r5"), RunList::Name).data().toString(), QString("r5"));
  }

  void a_row_shows_shape_type_and_size() {
    ModelTree tree;
    tree.put(model("/m/one", 3));
    const QModelIndex block = tree.index(1, 0, tree.index(0, 0));
    const QModelIndex linear = tree.index(2, 0, block);
    QCOMPARE(linear.data().toString(), QString("mlp.up_proj"));
    QCOMPARE(linear.siblingAtColumn(ModelTree::Shape).data().toString(), QString("192 × 64"));
    QCOMPARE(linear.siblingAtColumn(ModelTree::Type).data().toString(), QString("BF16"));
    QCOMPARE(linear.siblingAtColumn(ModelTree::Size).data().toString(), QString("24.0\u00a0KiB"));
    QCOMPARE(linear.data(ModelTree::LinearRole).value<LinearKey>(), (LinearKey{1, "mlp.up_proj"}));
    QCOMPARE(tree.indexOf(0, {1, "mlp.up_proj"}), linear);
    QVERIFY(!tree.indexOf(0, {9, "mlp.up_proj"}).isValid());
  }

  void a_search_finds_words_of_the_whole_path() {
    ModelTree tree;
    tree.put(model("/m/one", 12));
    ModelFilter filter;
    filter.setSourceModel(&tree);
    filter.search("down");
    QCOMPARE(leaves(filter), 12);
    filter.search("block 1 down");  // a number is a whole word: not blocks 10 and 11
    QCOMPARE(leaves(filter), 1);
    filter.search("192");
    QCOMPARE(leaves(filter), 24);
    filter.search("nothing like it");
    QCOMPARE(filter.rowCount(), 0);
    filter.search("");
    QCOMPARE(leaves(filter), 48);
  }

  void the_list_of_runs_follows_the_selection() {
    Selection selection;
    RunList list(&selection);
    QAbstractItemModelTester tester(&list, QAbstractItemModelTester::FailureReportingMode::QtTest);
    test::fill_demo(selection);
    QCOMPARE(list.rowCount(), selection.runs().size());
    const QString id = selection.runs().front().id;
    const int row = list.rowOf(id);
    QCOMPARE(row, list.rowCount() - 1);  // newest first
    QCOMPARE(list.index(row, RunList::Shown).data(Qt::CheckStateRole).toInt(), int(Qt::Checked));
    selection.setShown(id, false);
    QCOMPARE(list.index(row, RunList::Shown).data(Qt::CheckStateRole).toInt(), int(Qt::Unchecked));
    QCOMPARE(list.index(row, RunList::Shown).data(RunList::ColourRole).value<QColor>(), selection.find(id)->colour);

    QSignalSpy changed(&list, &QAbstractItemModel::dataChanged);
    auto report = std::make_shared<RunReport>(*selection.find(id)->report);
    report->evaluations.clear();
    report->status = RunStatus::running;
    selection.putRun(report);
    QCOMPARE(changed.size(), 1);
    QCOMPARE(list.index(row, RunList::Perplexity).data().toString(), QString("–"));
    EvaluationResult result;
    result.put({"perplexity", 12.3456});
    report = std::make_shared<RunReport>(*report);
    report->evaluations = {result};
    report->evaluations.front().float_model = true;  // the float model's is not the run's
    report->evaluations.push_back(result);
    report->evaluations.back().put({"perplexity", 23.456});
    selection.putRun(report);
    QCOMPARE(list.index(row, RunList::Perplexity).data().toString(), QString("23.46"));
    list.setActivity(id, "42 % done");
    QCOMPARE(list.index(row, RunList::Status).data().toString(), QString("42 % done"));
    list.setActivity(id, {});
    QCOMPARE(list.index(row, RunList::Status).data().toString(), QString("Running"));
    selection.removeRun(id);
    QCOMPARE(list.rowOf(id), -1);
  }

  static RunPtr runOf(const std::string& id, const std::string& path, const std::string& hash, unsigned seed = 1, int style = -1) {
    test::DemoOptions options;
    options.id = id;
    options.name = id;
    options.seed = seed;
    auto report = std::make_shared<RunReport>(*test::demo_run(options));
    report->model_path = path;
    report->model_name = path.substr(path.rfind('/') + 1);
    report->model_hash = hash;
    report->style = style;
    return report;
  }

  void each_model_has_its_own_runs_baseline_and_linear() {
    Selection selection;
    for (const char* id : {"a1", "a2"}) selection.putRun(runOf(id, "/m/one", "aaaa"));
    for (const char* id : {"b1", "b2"}) selection.putRun(runOf(id, "/m/two", "bbbb"));
    for (const char* id : {"a1", "a2", "b1", "b2"}) selection.setShown(id, true);
    QCOMPARE(selection.currentModel(), QString("aaaa"));
    const auto ids = [](const QVector<RunEntry>& runs) {
      QStringList all;
      for (const RunEntry& run : runs) all << run.id;
      return all;
    };
    QCOMPARE(ids(selection.shownRuns()), QStringList({"a1", "a2"}));
    selection.setCurrentRun("a2");
    selection.setBaseline("a1");
    selection.setCurrentLinear({1, "mlp.down_proj"});
    QSignalSpy models(&selection, &Selection::currentModelChanged), runs(&selection, &Selection::runsChanged), baselines(&selection, &Selection::baselineChanged);
    selection.setCurrentRun("b2");  // a run of the other model
    QCOMPARE(selection.currentModel(), QString("bbbb"));
    QVERIFY(models.size() == 1 && runs.size() >= 1 && baselines.size() == 1);
    QCOMPARE(ids(selection.shownRuns()), QStringList({"b1", "b2"}));
    QVERIFY(selection.baseline().isEmpty() && !selection.currentLinear().isValid());
    selection.setBaseline("a1");  // a foreign one
    QVERIFY(selection.baseline().isEmpty());
    const LinearErrors errors = gatherErrors(selection);
    QCOMPARE(errors.runs.size(), 2);
    QCOMPARE(errors.baseline, -1);
    const Accuracy accuracy = gatherAccuracy(selection, {});
    QVERIFY(accuracy.runs.size() == 2 && accuracy.floatModel && !accuracy.baseline);
    QVERIFY(!errorConditions(selection).contains("one"));
    selection.setCurrentModel("aaaa");
    QCOMPARE(selection.currentRun(), QString("a2"));
    QCOMPARE(selection.baseline(), QString("a1"));
    QCOMPARE(selection.currentLinear(), (LinearKey{1, "mlp.down_proj"}));
    selection.removeRun("a1");
    selection.removeRun("a2");
    QCOMPARE(selection.currentModel(), QString("bbbb"));  // nothing is left of the other
    QCOMPARE(selection.models().size(), 1);
  }

  void a_run_that_waits_belongs_to_the_model_at_its_path() {
    Selection selection;
    selection.putRun(runOf("waiting", "/m/one/", ""));
    QCOMPARE(selection.currentModel(), QString("/m/one"));
    selection.setCurrentRun("waiting");
    selection.putModel(model("/m/one", 3));  // its hash becomes known
    QCOMPARE(selection.currentModel(), QString("hash of one"));
    QCOMPARE(selection.find("waiting")->model, QString("hash of one"));
    QCOMPARE(selection.currentRun(), QString("waiting"));
    QCOMPARE(selection.models().size(), 1);
    selection.putRun(runOf("older", "/m/one", "another hash"));  // the model was another one then
    QCOMPARE(selection.find("older")->model, QString("another hash"));
    QCOMPARE(selection.find("waiting")->model, QString("hash of one"));
    const auto models = selection.models();
    QCOMPARE(models.size(), 2);
    QVERIFY(models[0].name != models[1].name);
  }

  void a_run_keeps_its_colour_and_models_count_theirs_apart() {
    Selection selection;
    selection.putRun(runOf("second", "/m/one", "aaaa", 1, 1));
    selection.putRun(runOf("first", "/m/one", "aaaa", 1, 0));
    selection.putRun(runOf("older", "/m/one", "aaaa"));
    selection.putRun(runOf("other", "/m/two", "bbbb"));
    Selection again;
    for (const auto& [id, style] : {std::pair("first", 0), {"second", 1}}) again.putRun(runOf(id, "/m/one", "aaaa", 1, style));
    for (const char* id : {"first", "second"}) QCOMPARE(selection.find(id)->colour, again.find(id)->colour);
    QVERIFY(selection.find("older")->colour != selection.find("first")->colour && selection.find("older")->colour != selection.find("second")->colour);
    QCOMPARE(selection.find("other")->colour, selection.find("first")->colour);
  }

  void the_list_shows_one_models_runs_and_sorts_missing_figures_last() {
    Selection selection;
    RunList list(&selection);
    RunFilter shown(&selection, &list);
    const auto with = [&](const char* id, double perplexity) {
      auto report = std::make_shared<RunReport>(*runOf(id, "/m/one", "aaaa"));
      report->evaluations.clear();
      if (perplexity > 0) {
        report->evaluations.emplace_back();
        report->evaluations.back().put({"perplexity", perplexity});
      }
      selection.putRun(report);
    };
    with("good", 10);
    with("none", 0);
    with("bad", 30);
    selection.putRun(runOf("foreign", "/m/two", "bbbb"));
    const auto order = [&] {
      QStringList ids;
      for (int row = 0; row < shown.rowCount(); ++row) ids << shown.index(row, 0).data(RunList::IdRole).toString();
      return ids;
    };
    QCOMPARE(shown.rowCount(), 3);
    shown.sort(RunList::Perplexity, Qt::AscendingOrder);
    QCOMPARE(order(), QStringList({"good", "bad", "none"}));
    shown.sort(RunList::Perplexity, Qt::DescendingOrder);
    QCOMPARE(order(), QStringList({"bad", "good", "none"}));
    selection.setCurrentModel("bbbb");
    QCOMPARE(order(), QStringList({"foreign"}));
  }

  void edits_in_the_list_are_requests() {
    Selection selection;
    test::fill_demo(selection);
    RunList list(&selection);
    QSignalSpy renamed(&list, &RunList::renameRequested), shown(&list, &RunList::showRequested);
    QVERIFY(list.setData(list.index(0, RunList::Name), " better ", Qt::EditRole));
    QCOMPARE(renamed.front()[1].toString(), QString("better"));
    QVERIFY(!list.setData(list.index(0, RunList::Name), "   ", Qt::EditRole));
    QVERIFY(list.setData(list.index(0, RunList::Shown), Qt::Unchecked, Qt::CheckStateRole));
    QCOMPARE(shown.front()[1].toBool(), false);
  }

  void figures_are_written_for_people() {
    QCOMPARE(formatBytes(0), QString("–"));
    QCOMPARE(formatBytes(1536), QString("1.5\u00a0KiB"));
    QCOMPARE(formatBytes(300.0 * 1024 * 1024), QString("300\u00a0MiB"));
    QCOMPARE(formatDuration(4.2), QString("4.2 s"));
    QCOMPARE(formatDuration(200), QString("3 min 20 s"));
    QCOMPARE(formatDuration(59.97), QString("1 min 00 s"));
    QCOMPARE(formatDuration(2 * 3600 + 300), QString("2 h 05 min"));
    QCOMPARE(formatDuration(-1), QString("–"));
    QCOMPARE(formatPerplexity(5.6789), QString("5.679"));
    QCOMPARE(formatPerplexity(20.968), QString("20.97"));
    QCOMPARE(formatPerplexity(216000), QString("216000"));
    QCOMPARE(formatPerplexity(std::nan("")), QString("–"));
    QCOMPARE(formatCount(134515008), QString("134.5\u00a0M"));
  }
};

QTEST_GUILESS_MAIN(TestWindowModels)
#include "test_window_models.moc"
