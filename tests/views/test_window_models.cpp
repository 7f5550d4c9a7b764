#include <QAbstractItemModelTester>
#include <QSignalSpy>
#include <QtTest/QtTest>

#include "fake_services.h"
#include "views/models/Format.h"
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
    tree.removeAt(0);
    QCOMPARE(leaves(tree), 30 * 4);
    tree.removeAt(0);
    QCOMPARE(tree.rowCount(), 0);
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
    report->perplexities.clear();
    report->status = RunStatus::running;
    selection.putRun(report);
    QCOMPARE(changed.size(), 1);
    QCOMPARE(list.index(row, RunList::Perplexity).data().toString(), QString("–"));
    PerplexityResult result;
    result.perplexity = 12.3456;
    report = std::make_shared<RunReport>(*report);
    report->perplexities = {result};
    report->perplexities.front().float_model = true;  // the float model's is not the run's
    report->perplexities.push_back(result);
    report->perplexities.back().perplexity = 23.456;
    selection.putRun(report);
    QCOMPARE(list.index(row, RunList::Perplexity).data().toString(), QString("23.46"));
    list.setActivity(id, "42 % done");
    QCOMPARE(list.index(row, RunList::Status).data().toString(), QString("42 % done"));
    list.setActivity(id, {});
    QCOMPARE(list.index(row, RunList::Status).data().toString(), QString("Running"));
    selection.removeRun(id);
    QCOMPARE(list.rowOf(id), -1);
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
