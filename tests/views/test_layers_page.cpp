#include <QAbstractItemModelTester>
#include <QComboBox>
#include <QLabel>
#include <QLineEdit>
#include <QSignalSpy>
#include <QSpinBox>
#include <QTableView>
#include <QtTest/QtTest>

#include "demo_reports.h"
#include "views/models/FactsModel.h"
#include "views/models/HotSpotModel.h"
#include "views/pages/AccuracyPage.h"
#include "views/pages/Inspector.h"
#include "views/pages/LayersPage.h"
#include "views/plots/HeatMapPlot.h"
#include "views/plots/HistogramPlot.h"
#include "views/plots/LinearErrorsPlot.h"
#include "views/plots/OutlierPlot.h"
#include "views/plots/MetricPlot.h"
#include "views/plots/RunsHeatPlot.h"

using namespace qb;
using namespace qb::views;

namespace {
constexpr int kSettle = 120;  // pages gather changes for a moment

void show(QWidget& widget, const QSize& size) {
  widget.resize(size);
  widget.show();
  QVERIFY(QTest::qWaitForWindowExposed(&widget));
  QTest::qWait(kSettle);
}
}  // namespace

class TestLayersPage : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void initTestCase() { QLocale::setDefault(QLocale::c()); }

  void hot_spots_rank_filter_and_keep_the_models_promises() {
    Selection selection;
    HotSpotModel model;
    HotSpotFilter filter;
    QAbstractItemModelTester modelTester(&model, QAbstractItemModelTester::FailureReportingMode::QtTest);
    filter.setSourceModel(&model);
    QAbstractItemModelTester filterTester(&filter, QAbstractItemModelTester::FailureReportingMode::QtTest);
    model.setData(gatherErrors(selection));
    QCOMPARE(model.rowCount(), 0);
    test::fill_demo(selection);
    model.setData(gatherErrors(selection));
    QCOMPARE(model.rowCount(), 210);
    filter.setCount(20);
    filter.sort(HotSpotModel::Rank);
    QCOMPARE(filter.rowCount(), 20);
    // Worst first, and the first is the massive activation of block 1.
    QCOMPARE(filter.index(0, 0).data(HotSpotModel::KeyRole).value<LinearKey>(), (LinearKey{1, "mlp.down_proj"}));
    for (int row = 1; row < 20; ++row)
      QVERIFY(filter.index(row, HotSpotModel::Value).data(HotSpotModel::SortRole).toDouble() <=
              filter.index(row - 1, HotSpotModel::Value).data(HotSpotModel::SortRole).toDouble());
    const double tenth = filter.index(9, HotSpotModel::Value).data(HotSpotModel::SortRole).toDouble();
    filter.setThreshold(tenth);
    QCOMPARE(filter.rowCount(), 10);
    filter.setThreshold(std::nan(""));
    filter.setSubset("qkv");
    QCOMPARE(filter.rowCount(), 20);  // the worst 20 of this subset, not those of the worst 20
    const LinearReport* now = findLinear(*selection.find("gptq4")->report, {1, "mlp.down_proj"});
    const LinearReport* base = findLinear(*selection.find("rtn4")->report, {1, "mlp.down_proj"});
    QCOMPARE(model.index(model.rowOf({1, "mlp.down_proj"}), HotSpotModel::Delta).data(HotSpotModel::SortRole).toDouble(),
             now->output_relative_error - base->output_relative_error);
    // A run that grows.
    selection.setCurrentRun("live");
    model.setData(gatherErrors(selection));
    QCOMPARE(model.rowCount(), 12 * 7);
    // A metric where higher is better: rank 1 is the lowest.
    selection.setMetric(views::Metric::OutputSqnr);
    model.setData(gatherErrors(selection));
    filter.setSubset({});
    filter.setCount(1);
    double lowest = 1e9;
    for (int row = 0; row < model.rowCount(); ++row) lowest = std::min(lowest, model.value(row));
    QCOMPARE(filter.rowCount(), 1);
    QCOMPARE(filter.index(0, HotSpotModel::Value).data(HotSpotModel::SortRole).toDouble(), lowest);
  }

  void facts_keep_the_models_promises() {
    FactsModel facts;
    LinearNumbersModel numbers;
    QAbstractItemModelTester factsTester(&facts, QAbstractItemModelTester::FailureReportingMode::QtTest);
    QAbstractItemModelTester numbersTester(&numbers, QAbstractItemModelTester::FailureReportingMode::QtTest);
    Selection selection;
    test::fill_demo(selection);
    facts.setFacts(runFacts(*selection.find("gptq4")->report));
    QStringList all;
    for (int row = 0; row < facts.rowCount(); ++row) all += facts.index(row, 1).data().toString();
    const QString text = all.join('\n');
    QVERIFY(text.contains("23.60 ±"));
    QVERIFY(text.contains("20 of 141 windows of 2048 tokens, float32"));  // never without its conditions
    QVERIFY2(text.contains(QLocale().toString(65536) + " tokens"), qPrintable(text));
    numbers.setRuns(selection.shownRuns(), {20, "self_attn.o_proj"});
    QCOMPARE(numbers.columnCount(), 6);
    QCOMPARE(numbers.index(1, 5).data().toString(), QStringLiteral("–"));  // the run under way is not there yet
    QVERIFY(numbers.index(1, 0).data().toString().toDouble() > 0);
    selection.removeRun("live");
    numbers.setRuns(selection.shownRuns(), {20, "self_attn.o_proj"});
    QCOMPARE(numbers.columnCount(), 5);
    facts.setFacts({});
    QCOMPARE(facts.rowCount(), 0);
  }

  void empty_pages_say_what_to_do() {
    Selection selection;
    LayersPage layers(&selection);
    AccuracyPage accuracy(&selection);
    Inspector inspector(&selection);
    show(layers, {700, 500});
    for (Plot* plot : layers.findChildren<Plot*>() + accuracy.findChildren<Plot*>()) QVERIFY(plot->isEmpty());
    QVERIFY(layers.grab().toImage().size().isValid());
    selection.setCurrentLinear({0, "self_attn.q_proj"});  // of a model that nobody ran
    QTest::qWait(kSettle);
  }

  void everything_is_linked_through_the_selection() {
    Selection selection;
    test::fill_demo(selection);
    LayersPage page(&selection);
    Inspector inspector(&selection);
    show(page, {700, 560});
    show(inspector, {280, 700});
    auto* plot = page.findChild<LinearErrorsPlot*>();
    auto* heat = page.findChild<HeatMapPlot*>();
    auto* table = page.findChild<QTableView*>();
    QVERIFY(plot->isLogarithmic());  // the metric's default

    const LinearKey cell{5, "mlp.gate_proj"};
    QTest::mouseClick(heat, Qt::LeftButton, {}, heat->pixelOf(cell).toPoint());
    QCOMPARE(selection.currentLinear(), cell);

    QTest::mouseClick(table->viewport(), Qt::LeftButton, {}, table->visualRect(table->model()->index(0, 1)).center());
    const LinearKey worst{1, "mlp.down_proj"};
    QCOMPARE(selection.currentLinear(), worst);
    QTest::qWait(kSettle);
    const auto titled = [&] {
      const QList<QLabel*> labels = inspector.findChildren<QLabel*>();
      return std::any_of(labels.begin(), labels.end(), [](const QLabel* label) { return label->text().contains("mlp.down_proj"); });
    };
    QTRY_VERIFY(titled());  // a busy machine takes its time
    int drawn = 0;
    for (const HistogramPlot* each : inspector.findChildren<HistogramPlot*>()) drawn += !each->isEmpty();
    QCOMPARE(drawn, 4);
    QVERIFY(!inspector.findChild<OutlierPlot*>()->isEmpty());

    const LinearKey point{20, "self_attn.o_proj"};
    QTest::mouseClick(plot, Qt::LeftButton, {}, plot->pixelOf(point, 0).toPoint());
    // Points are three pixels apart here: the click may take a neighbour, never a far one.
    QVERIFY(std::abs(selection.currentLinear().block - 20) <= 1);
  }

  void a_chosen_row_of_the_table_is_selected_when_another_view_chooses() {
    Selection selection;
    test::fill_demo(selection);
    LayersPage page(&selection);
    show(page, {700, 560});
    auto* table = page.findChild<QTableView*>();
    const LinearKey key = table->model()->index(7, 0).data(HotSpotModel::KeyRole).value<LinearKey>();
    selection.setCurrentLinear(key);
    QCOMPARE(table->selectionModel()->selectedRows().size(), 1);
    QCOMPARE(table->selectionModel()->selectedRows()[0].row(), 7);
    selection.setCurrentLinear({});
    QVERIFY(!table->selectionModel()->hasSelection());
  }

  void snapshots_stream_in_and_removed_runs_go() {
    Selection selection;
    LayersPage page(&selection);
    Inspector inspector(&selection);
    AccuracyPage accuracy(&selection);
    show(page, {700, 560});
    auto* plot = page.findChild<LinearErrorsPlot*>();
    test::DemoOptions options;
    options.id = "r";
    for (const int blocks : {0, 1, 4, 9}) {
      options.finishedBlocks = blocks;
      selection.putRun(test::demo_run(options));
      selection.setShown("r", true);
      QTest::qWait(kSettle);
      QCOMPARE(plot->isEmpty(), blocks == 0);
      if (blocks > 0) QCOMPARE(plot->table().rows.size(), blocks * 7);
    }
    options.finishedBlocks = -1;
    selection.putRun(test::demo_run(options));
    QTest::qWait(kSettle);
    QCOMPARE(plot->table().rows.size(), 30 * 7);
    QVERIFY(!accuracy.findChild<MetricPlot*>()->isEmpty());
    selection.setCurrentLinear({3, "self_attn.k_proj"});
    selection.removeRun("r");
    QTest::qWait(kSettle);
    QVERIFY(plot->isEmpty());
    QVERIFY(accuracy.findChild<MetricPlot*>()->isEmpty());
  }

  void metric_subset_and_difference_change_the_pictures() {
    Selection selection;
    test::fill_demo(selection);
    LayersPage page(&selection);
    show(page, {700, 560});
    auto* plot = page.findChild<LinearErrorsPlot*>();
    auto* heat = page.findChild<HeatMapPlot*>();
    selection.setMetric(views::Metric::OutputSqnr);
    QVERIFY(plot->yAxis->label().contains("dB"));
    QVERIFY(!plot->isLogarithmic());
    QVERIFY(heat->differenceAction()->isEnabled());
    heat->setDifference(true);
    QVERIFY(heat->title().contains("minus"));
    selection.setBaseline({});
    QTest::qWait(kSettle);
    QVERIFY(!heat->isDifference());  // nothing to differ from
    for (QComboBox* box : page.findChildren<QComboBox*>()) {
      const int down = box->findData("down");
      if (down < 0) continue;
      box->setCurrentIndex(down);
      Q_EMIT box->activated(down);
    }
    QCOMPARE(plot->table().rows.size(), 30);
  }

  void a_cell_of_the_map_of_runs_chooses_run_and_linear() {
    Selection selection;
    test::fill_many(selection, 40);
    LayersPage page(&selection);
    show(page, {900, 640});
    auto* map = page.findChild<RunsHeatPlot*>();
    QVERIFY(map && !map->isVisible());
    QComboBox* view = nullptr;
    for (QComboBox* box : page.findChildren<QComboBox*>())
      if (box->accessibleName() == "How runs are drawn") view = box;
    QVERIFY(view);
    view->setCurrentIndex(1);
    Q_EMIT view->activated(1);
    QTest::qWait(kSettle);
    QVERIFY(map->isVisible() && !map->isEmpty() && !page.findChild<LinearErrorsPlot*>()->isVisible());
    QVERIFY(map->title().contains("every run"));
    const LinearKey key{9, "self_attn.o_proj"};
    QTest::mouseClick(map, Qt::LeftButton, {}, map->pixelOf("run 1", key).toPoint());
    QCOMPARE(selection.currentRun(), QStringLiteral("run 1"));
    QCOMPARE(selection.currentLinear(), key);
    QTest::qWait(kSettle);
    QVERIFY(page.findChild<HeatMapPlot*>()->title().contains("attempt 1"));
    // Keys: the next linear, the run below.
    map->setFocus();
    QTest::keyClick(map, Qt::Key_Right);
    QCOMPARE(selection.currentLinear(), (LinearKey{9, "mlp.gate_proj"}));
    QTest::keyClick(map, Qt::Key_Down);
    QCOMPARE(selection.currentRun(), QStringLiteral("run 2"));
    QCOMPARE(selection.currentLinear(), (LinearKey{9, "mlp.gate_proj"}));
    // The difference is there although the baseline is current, and goes with the baseline.
    selection.setCurrentRun("run 5");
    QTest::qWait(kSettle);
    map->setDifference(true);
    QVERIFY(map->title().contains("minus") && map->isDifference());
    selection.setBaseline({});
    QTest::qWait(kSettle);
    QVERIFY(!map->isDifference() && !map->title().contains("minus"));
    view->setCurrentIndex(2);
    Q_EMIT view->activated(2);
    QVERIFY(map->isByBlock());
  }

  void every_control_has_a_name_for_assistive_tools() {
    Selection selection;
    test::fill_demo(selection);
    LayersPage layers(&selection);
    AccuracyPage accuracy(&selection);
    QList<QWidget*> controls;
    for (QWidget* page : std::initializer_list<QWidget*>{&layers, &accuracy}) {
      for (Plot* each : page->findChildren<Plot*>()) controls << each;
      for (QComboBox* each : page->findChildren<QComboBox*>()) controls << each;
      for (QTableView* each : page->findChildren<QTableView*>()) controls << each;
      for (QLineEdit* each : page->findChildren<QLineEdit*>())
        if (each->objectName() != "qt_spinbox_lineedit") controls << each;
    }
    QVERIFY(controls.size() >= 12);
    for (QWidget* control : controls) {
      QVERIFY2(!control->accessibleName().isEmpty(), control->metaObject()->className());
      QVERIFY(control->focusPolicy() & Qt::TabFocus);
    }
  }
};

QTEST_MAIN(TestLayersPage)
#include "test_layers_page.moc"
