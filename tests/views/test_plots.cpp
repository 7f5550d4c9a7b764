#include <QClipboard>
#include <QSignalSpy>
#include <QTemporaryDir>
#include <QXmlStreamReader>
#include <QtTest/QtTest>
#include <cmath>

#include "core/base/error.h"
#include "demo_reports.h"
#include "views/models/Accuracy.h"
#include "views/models/LinearErrors.h"
#include "views/plots/CostPlot.h"
#include "views/plots/HeatMapPlot.h"
#include "views/plots/HistogramPlot.h"
#include "views/plots/LinearErrorsPlot.h"
#include "views/plots/OutlierPlot.h"
#include "views/plots/ParetoPlot.h"
#include "views/plots/PerplexityPlot.h"
#include "views/plots/WindowDeltaPlot.h"

using namespace qb;
using namespace qb::views;

namespace {

// Two blocks of two linears; `values` in depth order.
RunPtr smallRun(const std::string& id, const std::vector<double>& values) {
  auto report = std::make_shared<RunReport>();
  report->id = report->name = id;
  for (size_t i = 0; i < values.size(); ++i) {
    if (i % 2 == 0) report->blocks.push_back({int(i / 2), {}});
    LinearReport linear;
    linear.block = int(i / 2);
    linear.name = i % 2 == 0 ? "self_attn.q_proj" : "mlp.down_proj";
    linear.subset = i % 2 == 0 ? "qkv" : "down";
    linear.output_relative_error = values[i];
    report->blocks.back().linears.push_back(linear);
  }
  return report;
}

void show(QWidget& widget, const QSize& size) {
  widget.resize(size);
  widget.show();
  QVERIFY(QTest::qWaitForWindowExposed(&widget));
  QTest::qWait(30);
}

QVector<double> valuesOf(const QCPGraph* graph) {
  QVector<double> values;
  for (auto it = graph->data()->constBegin(); it != graph->data()->constEnd(); ++it) values.push_back(it->value);
  return values;
}

}  // namespace

class TestPlots : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void initTestCase() {
    QLocale::setDefault(QLocale::c());
    QStandardPaths::setTestModeEnabled(true);
  }

  void of_forty_runs_two_have_colours_and_the_pointer_names_the_others() {
    Selection selection;
    const auto names = [](const QCustomPlot& plot) {
      QStringList shown;
      for (int i = 0; i < plot.legend->itemCount(); ++i)
        if (auto* item = qobject_cast<QCPPlottableLegendItem*>(plot.legend->item(i))) shown << item->plottable()->name();
      return shown;
    };
    const auto fill = [&](int from, int to) {
      for (int i = from; i < to; ++i) {
        const QString id = QStringLiteral("run %1").arg(i);
        auto report = std::make_shared<RunReport>(*smallRun(id.toStdString(), {0.01 * (i + 1), 0.02 * (i + 1), 0.03 * (i + 1), 0.04 * (i + 1)}));
        report->perplexities = {test::demo_perplexity(21.7, true, 1), test::demo_perplexity(22 + i, false, unsigned(i) + 10)};
        selection.putRun(report);
        selection.setShown(id, true);
      }
    };
    fill(0, 8);
    selection.setCurrentRun("run 3");
    selection.setBaseline("run 5");
    LinearErrorsPlot plot;
    const auto draw = [&] {
      const LinearErrors errors = gatherErrors(selection);
      plot.setData(errors, orderedRows(errors, LinearOrder::Depth, {}), true);
    };
    show(plot, {700, 400});
    draw();
    QCOMPARE(names(plot).size(), 8);
    fill(8, 40);
    draw();
    QCOMPARE(names(plot), QStringList({"38 others (named on hovering)", "run 3", "run 5"}));
    QTRY_COMPARE(plot.graph(3)->pen().color().rgb(), selection.find("run 3")->colour.rgb());
    QVERIFY(plot.graph(7)->pen().color() == plot.graph(20)->pen().color() && plot.graph(7)->layer()->index() < plot.graph(3)->layer()->index());
    const QString at = plot.describe(plot.pixelOf({0, "mlp.down_proj"}, 30));
    QVERIFY2(at.contains("run 30:") && at.contains("run 3:") && at.contains("run 5:") && at.contains("and 37 others") && !at.contains("run 12:"), qPrintable(at));
    WindowDeltaPlot deltas;
    show(deltas, {700, 400});
    deltas.setData(gatherAccuracy(selection, {}));
    QCOMPARE(names(deltas).size(), 2);  // the baseline is the zero line
    QVERIFY(names(deltas).filter("38 others").size() == 1 && names(deltas).filter("run 3:").size() == 1);
    // Fewer again: each has its colour.
    for (int i = 8; i < 40; ++i) selection.setShown(QStringLiteral("run %1").arg(i), false);
    draw();
    QCOMPARE(names(plot).size(), 8);
  }

  void errors_are_drawn_in_depth_order_and_gaps_stay_gaps() {
    Selection selection;
    selection.putRun(smallRun("a", {0.1, 0.4, 0.2, 0.3}));
    selection.putRun(smallRun("b", {0.5, 0.6}));  // one block so far
    selection.setShown("a", true);
    selection.setShown("b", true);
    const LinearErrors errors = gatherErrors(selection);
    LinearErrorsPlot plot;
    plot.setData(errors, orderedRows(errors, LinearOrder::Depth, {}), true);
    QCOMPARE(valuesOf(plot.graph(0)), (QVector<double>{0.1, 0.4, 0.2, 0.3}));
    const QVector<double> partial = valuesOf(plot.graph(1));
    QCOMPARE(partial[1], 0.6);
    QVERIFY(std::isnan(partial[2]) && std::isnan(partial[3]));
  }

  void orders_put_the_worst_first_and_filter_subsets() {
    Selection selection;
    selection.putRun(smallRun("base", {0.1, 0.1, 0.3, 0.3}));
    selection.putRun(smallRun("now", {0.1, 0.4, 0.2, 0.3}));
    selection.setShown("now", true);
    selection.setCurrentRun("now");
    selection.setBaseline("base");
    LinearErrors errors = gatherErrors(selection);
    QCOMPARE(orderedRows(errors, LinearOrder::Value, {}), (QVector<int>{1, 3, 2, 0}));
    QCOMPARE(orderedRows(errors, LinearOrder::Delta, {}), (QVector<int>{1, 0, 3, 2}));
    QCOMPARE(orderedRows(errors, LinearOrder::Value, "qkv"), (QVector<int>{2, 0}));
    QVERIFY(!errors.runs[errors.baseline].drawn);  // the baseline's eye is off
    selection.setMetric(Metric::OutputSqnr);       // higher is better: all equal here, so the order stays
    errors = gatherErrors(selection);
    QCOMPARE(orderedRows(errors, LinearOrder::Value, {}), (QVector<int>{0, 1, 2, 3}));
  }

  void clicking_a_point_chooses_its_linear() {
    Selection selection;
    test::fill_demo(selection);
    const LinearErrors errors = gatherErrors(selection);
    LinearErrorsPlot plot;
    plot.setLogarithmic(true);
    plot.setData(errors, orderedRows(errors, LinearOrder::Depth, {}), true);
    show(plot, {1400, 400});
    QSignalSpy chosen(&plot, &LinearErrorsPlot::linearChosen);
    const LinearKey key{1, "mlp.down_proj"};
    QTest::mouseClick(&plot, Qt::LeftButton, {}, plot.pixelOf(key, 3).toPoint());
    QCOMPARE(chosen.size(), 1);
    QCOMPARE(chosen[0][0].value<LinearKey>(), key);
    QVERIFY(plot.describe(plot.pixelOf(key, 3)).contains("mlp.down_proj"));
    // Right arrow: the next linear in the drawn order.
    plot.setCurrent(key);
    plot.setFocus();
    QTest::keyClick(&plot, Qt::Key_Right);
    QCOMPARE(chosen.size(), 2);
    QCOMPARE(chosen[1][0].value<LinearKey>(), (LinearKey{2, "self_attn.q_proj"}));
  }

  void clicking_a_cell_of_the_heat_map_chooses_its_linear() {
    Selection selection;
    test::fill_demo(selection);
    HeatMapPlot plot;
    plot.setData(gatherErrors(selection));
    show(plot, {500, 300});
    QSignalSpy chosen(&plot, &HeatMapPlot::linearChosen);
    const LinearKey key{17, "self_attn.v_proj"};
    QTest::mouseClick(&plot, Qt::LeftButton, {}, plot.pixelOf(key).toPoint());
    QCOMPARE(chosen.size(), 1);
    QCOMPARE(chosen[0][0].value<LinearKey>(), key);
  }

  void the_heat_map_shows_the_current_run_or_its_difference() {
    Selection selection;
    selection.putRun(smallRun("base", {0.1, 0.1, 0.3, 0.3}));
    selection.putRun(smallRun("now", {0.1, 0.4, 0.2, 0.35}));
    selection.setShown("now", true);
    selection.setCurrentRun("now");
    selection.setBaseline("base");
    HeatMapPlot plot;
    plot.setData(gatherErrors(selection));
    auto* map = qobject_cast<QCPColorMap*>(plot.plottable(0));
    QCOMPARE(map->data()->cell(1, 1), 0.35);  // block 1, down_proj
    QCOMPARE(map->dataRange(), QCPRange(0.1, 0.4));
    plot.setDifference(true);
    QCOMPARE(map->data()->cell(1, 0), 0.2 - 0.3);
    QCOMPARE(map->dataRange().lower, -map->dataRange().upper);  // no difference is the neutral colour
  }

  void zeros_stand_at_the_edge_of_a_logarithmic_axis() {
    Selection selection;
    selection.putRun(smallRun("a", {0.0, 0.4, 0.01, 0.3}));
    selection.setShown("a", true);
    const LinearErrors errors = gatherErrors(selection);
    LinearErrorsPlot plot;
    plot.setData(errors, orderedRows(errors, LinearOrder::Depth, {}), true);
    QCOMPARE(valuesOf(plot.graph(0))[0], 0.0);
    plot.setLogarithmic(true);
    const QVector<double> values = valuesOf(plot.graph(0));
    QVERIFY(values[0] > 0 && values[0] < 0.01);
    QVERIFY(plot.yAxis->range().lower > 0);
    QVERIFY(plot.yAxis->range().contains(values[0]));
    QCOMPARE(values[1], 0.4);
    QCOMPARE(plot.table().rows[0][3].toDouble(), 0.0);  // exported as it is
    plot.setLogarithmic(false);
    QCOMPARE(valuesOf(plot.graph(0))[0], 0.0);
  }

  void a_run_without_any_error_can_be_drawn() {
    Selection selection;
    selection.putRun(smallRun("a", {0, 0, 0, 0}));
    selection.setShown("a", true);
    const LinearErrors errors = gatherErrors(selection);
    LinearErrorsPlot plot;
    plot.setLogarithmic(true);
    plot.setData(errors, orderedRows(errors, LinearOrder::Value, {}), false);
    HeatMapPlot heat;
    heat.setLogarithmic(true);
    heat.setData(errors);
    for (Plot* each : std::initializer_list<Plot*>{&plot, &heat}) {
      show(*each, {400, 300});
      QVERIFY(!each->isEmpty());
    }
  }

  void narrow_logarithmic_ranges_are_labelled() {
    for (const QCPRange range : {QCPRange(0.021, 0.027), QCPRange(0.02, 0.09), QCPRange(1e-6, 1e-1), QCPRange(1e-30, 1e5)}) {
      LogTicker ticker;
      QVector<double> ticks;
      QVector<QString> labels;
      ticker.generate(range, QLocale::c(), 'g', 3, ticks, nullptr, &labels);
      const auto inside = std::count_if(ticks.begin(), ticks.end(), [&](double tick) { return range.contains(tick); });
      QVERIFY2(inside >= 2 && inside <= 14, qPrintable(QStringLiteral("%1 ticks from %2").arg(inside).arg(range.lower)));
    }
  }

  void exports_are_valid_files() {
    Selection selection;
    test::fill_demo(selection);
    const LinearErrors errors = gatherErrors(selection);
    LinearErrorsPlot plot;
    plot.setCaption("Errors, \"all\"", "65,536 tokens");
    plot.setData(errors, orderedRows(errors, LinearOrder::Depth, {}), true);
    show(plot, {700, 300});
    QTemporaryDir folder;
    const QString stem = folder.filePath("plot");
    for (const char* suffix : {".png", ".svg", ".pdf", ".csv"}) plot.save(stem + suffix);

    const QImage image(stem + ".png");
    QCOMPARE(image.size(), QSize(1400, 600));
    QSet<QRgb> colours;
    for (int x = 0; x < image.width(); x += 3)
      for (int y = 0; y < image.height(); y += 3) colours.insert(image.pixel(x, y));
    QVERIFY(colours.size() > 50);  // not blank

    QFile svg(stem + ".svg");
    QVERIFY(svg.open(QIODevice::ReadOnly));
    QXmlStreamReader xml(&svg);
    int paths = 0;
    while (!xml.atEnd()) paths += xml.readNext() == QXmlStreamReader::StartElement && (xml.name() == u"polyline" || xml.name() == u"path");
    QVERIFY2(!xml.hasError(), qPrintable(xml.errorString()));
    QVERIFY(paths > 6);

    QFile pdf(stem + ".pdf");
    QVERIFY(pdf.open(QIODevice::ReadOnly));
    QVERIFY(pdf.readAll().startsWith("%PDF-"));

    QFile csv(stem + ".csv");
    QVERIFY(csv.open(QIODevice::ReadOnly));
    const QStringList lines = QString::fromUtf8(csv.readAll()).split("\r\n", Qt::SkipEmptyParts);
    QCOMPARE(lines.size(), 1 + errors.rows());
    QVERIFY(lines[0].contains("\"rtn, int4 g64: Output relative error\""));  // commas are quoted
    const QStringList fields = lines[1].split(',');
    QCOMPARE(fields.size(), 3 + 6);
    QCOMPARE(fields[1], "self_attn.q_proj");
    QCOMPARE(fields[3].toDouble(), errors.runs[0].values[0]);                // to the last bit
    QVERIFY(lines.last().endsWith(','));                                     // the run under way has no last block yet

    try {
      plot.save(folder.filePath("plot.bmp"));
      QFAIL("an unknown suffix must be refused");
    } catch (const InputError& error) {
      QVERIFY(QString::fromUtf8(error.what()).contains("bmp"));
    }
    try {
      plot.save(folder.filePath("missing/plot.csv"));
      QFAIL("a missing folder must be refused");
    } catch (const ResourceError& error) {
      QVERIFY(QString::fromUtf8(error.what()).contains("missing/plot.csv"));
    }
    plot.copyImageAction()->trigger();
    QCOMPARE(QApplication::clipboard()->image().size(), QSize(1400, 600));
    plot.copyDataAction()->trigger();
    QVERIFY(QApplication::clipboard()->text().startsWith("block,linear,subset"));
  }

  void csv_quotes_what_needs_it() {
    QCOMPARE(toCsv({{"a", "b"}, {{QString("x\"y"), 0.1}, {QVariant(), std::nan("")}}}), QString("a,b\r\n\"x\"\"y\",0.1\r\n,\r\n"));
  }

  void a_new_palette_restyles() {
    Selection selection;
    test::fill_demo(selection);
    const LinearErrors errors = gatherErrors(selection);
    LinearErrorsPlot plot;
    plot.setData(errors, orderedRows(errors, LinearOrder::Depth, {}), true);
    show(plot, {400, 300});
    QPalette dark;
    dark.setColor(QPalette::Base, Qt::black);
    dark.setColor(QPalette::Text, QColor(250, 250, 250));
    plot.setPalette(dark);
    QTest::qWait(50);
    QCOMPARE(plot.xAxis->labelColor(), QColor(250, 250, 250));
    QCOMPARE(plot.image(1).pixelColor(2, 2), QColor(Qt::black));
    QPalette light;
    light.setColor(QPalette::Base, Qt::white);
    plot.setPalette(light);
    QTest::qWait(50);
    QCOMPARE(plot.image(1).pixelColor(2, 2), QColor(Qt::white));
  }

  void zoom_stays_through_new_data_and_resets() {
    Selection selection;
    test::fill_demo(selection);
    LinearErrors errors = gatherErrors(selection);
    const QVector<int> rows = orderedRows(errors, LinearOrder::Depth, {});
    LinearErrorsPlot plot;
    plot.setData(errors, rows, true);
    show(plot, {600, 300});
    const QCPRange whole = plot.xAxis->range();
    plot.setFocus();
    QTest::keyClick(&plot, Qt::Key_Plus);
    const QCPRange near = plot.xAxis->range();
    QVERIFY(near.size() < whole.size());
    plot.setData(errors, rows, true);
    QCOMPARE(plot.xAxis->range(), near);
    QTest::mouseDClick(&plot, Qt::LeftButton, {}, QPoint(300, 150));
    QCOMPARE(plot.xAxis->range(), whole);
    QTest::keyClick(&plot, Qt::Key_L);
    QVERIFY(plot.isLogarithmic());
    QTest::keyClick(&plot, Qt::Key_G);
    QVERIFY(!plot.legend->visible());
    // Shift and drag: a rectangle.
    const QRect inner = plot.axisRect()->rect();
    QTest::mousePress(&plot, Qt::LeftButton, Qt::ShiftModifier, inner.topLeft() + QPoint(50, 20));
    QTest::mouseMove(&plot, inner.topLeft() + QPoint(90, 60));
    QTest::mouseMove(&plot, inner.topLeft() + QPoint(150, 100));
    QTest::mouseRelease(&plot, Qt::LeftButton, Qt::ShiftModifier, inner.topLeft() + QPoint(150, 100));
    QVERIFY(plot.xAxis->range().size() < whole.size() / 2);
    QTest::keyClick(&plot, Qt::Key_Home);
    QCOMPARE(plot.xAxis->range(), whole);
  }

  void histograms_are_densities_that_count_what_lies_outside() {
    HistogramPlot plot;
    plot.setLogarithmic(false);
    Histogram histogram;
    histogram.low = -1;
    histogram.high = 1;
    histogram.counts = {1, 0, 2, 1};
    histogram.above = 4;
    plot.setData({{"w", Qt::red, histogram}}, "Weight");
    const QVector<double> values = valuesOf(plot.graph(0));
    // ground, four bins, ground; 8 values in all, bins 0.5 wide
    QCOMPARE(values, (QVector<double>{0, 1 / 8.0 / 0.5, 0, 2 / 8.0 / 0.5, 1 / 8.0 / 0.5, 0}));
    QCOMPARE(plot.table().rows.size(), 5);
    plot.setLogarithmic(true);
    for (const double value : valuesOf(plot.graph(0))) QVERIFY(value > 0);
    plot.setData({}, "Weight");
    QVERIFY(plot.isEmpty());
    Histogram point;  // a constant tensor
    point.low = point.high = 0.5;
    point.counts = {7};
    plot.setData({{"w", Qt::red, point}}, "Weight");
    show(plot, {300, 200});
    QVERIFY(plot.xAxis->range().size() > 0);
  }

  void outlier_channels_are_stems_over_the_median() {
    OutlierPlot plot;
    plot.setData({{40, 12.0, 6.0}, {7, 8.0, 4.0}}, 64, Qt::blue);
    QCOMPARE(valuesOf(plot.graph(0)), (QVector<double>{8, 12}));  // by channel
    QCOMPARE(valuesOf(plot.graph(1)), (QVector<double>{2, 2}));   // the median
    show(plot, {300, 200});
    const QPointF at(plot.xAxis->coordToPixel(40), plot.yAxis->coordToPixel(12));
    QVERIFY(plot.describe(at).contains("channel 40 of 64"));
  }

  void a_frontier_has_no_point_that_another_beats() {
    QCOMPARE(paretoFrontier({4.3, 3.3, 4.3, 5.0, 3.4}, {23, 31, 24, 24, 29}), (QVector<int>{1, 4, 0}));
    QVERIFY(paretoFrontier({}, {}).isEmpty());
  }

  void differences_are_paired() {
    PerplexityResult run, base;
    base.window_nll = {3.0, 2.0, 4.0};
    run.window_nll = {3.1, 2.3, 4.2};
    const PairedDifference difference = pairedDifference(run, base);
    QVERIFY(std::abs(difference.mean - 0.2) < 1e-12);
    QVERIFY(std::abs(difference.standardError - 0.1 / std::sqrt(3.0)) < 1e-12);  // sample deviation of 0.1, 0.3, 0.2 is 0.1
  }

  void only_equal_conditions_are_compared() {
    Selection selection;
    test::fill_demo(selection);
    auto other = std::make_shared<RunReport>(*selection.find("rtn3")->report);
    for (PerplexityResult& result : other->perplexities) result.seq_len = 512;
    selection.putRun(other);
    QCOMPARE(allConditions(selection).size(), 2);
    const Accuracy accuracy = gatherAccuracy(selection, {});
    QCOMPARE(accuracy.runs.size(), 6);
    int measured = 0;
    for (const auto& run : accuracy.runs) measured += run.result != nullptr;
    QCOMPARE(measured, 4);  // not the one under way, not the one with other windows
    QCOMPARE(accuracy.floatModel->perplexity, 21.7);
    QVERIFY(accuracy.conditions.contains("2048") && accuracy.conditions.contains("20 of 141"));
    const Accuracy second = gatherAccuracy(selection, allConditions(selection)[1].key);
    QVERIFY(!second.baseline);  // the baseline was not measured so
  }

  void accuracy_plots_show_runs_and_float_model() {
    Selection selection;
    test::fill_demo(selection);
    const Accuracy accuracy = gatherAccuracy(selection, {});
    PerplexityPlot perplexity;
    ParetoPlot pareto;
    WindowDeltaPlot windows;
    CostPlot cost;
    perplexity.setData(accuracy);
    pareto.setData(accuracy);
    windows.setData(accuracy);
    cost.setData(accuracy);
    for (Plot* plot : std::initializer_list<Plot*>{&perplexity, &pareto, &windows, &cost}) {
      show(*plot, {350, 240});
      QVERIFY(!plot->isEmpty());
    }
    QCOMPARE(perplexity.table().rows.size(), 6);  // five runs and the float model
    QCOMPARE(pareto.table().rows.size(), 5);
    QCOMPARE(windows.table().headers.size(), 1 + 4);  // all but the baseline
    QCOMPARE(windows.table().rows.size(), 20);
    QCOMPARE(cost.table().rows.size(), 6);
    QVERIFY(perplexity.xAxis->range().contains(21.7) && perplexity.xAxis->range().contains(41.2));

    QSignalSpy chosen(&pareto, &ParetoPlot::runChosen);
    const auto report = selection.find("rtn3")->report;
    QTest::mouseClick(&pareto, Qt::LeftButton, {}, QPointF(pareto.xAxis->coordToPixel(report->bits_per_weight), pareto.yAxis->coordToPixel(41.2)).toPoint());
    QCOMPARE(chosen.size(), 1);
    QCOMPARE(chosen[0][0].toString(), "rtn3");
  }

  // 200 blocks × 32 linears × 6 runs: the redraw must stay interactive.
  void the_float_model_alone_fills_the_picture() {
    PerplexityResult model;
    model.float_model = true;
    model.perplexity = 20;
    model.standard_error = 1;
    Accuracy accuracy;
    accuracy.floatModel = &model;
    PerplexityPlot plot;
    plot.setData(accuracy);
    show(plot, {400, 240});
    QVERIFY(plot.axisRect()->width() > 200);
  }

  void a_picture_on_a_hidden_page_is_drawn_when_it_is_shown() {
    Selection selection;
    test::fill_demo(selection);
    const LinearErrors errors = gatherErrors(selection);
    LinearErrorsPlot plot;
    plot.resize(500, 300);
    QTest::qWait(20);  // QCustomPlot draws once when it is made
    QSignalSpy drawn(&plot, &QCustomPlot::afterReplot);
    plot.setData(errors, orderedRows(errors, LinearOrder::Depth, {}), true);
    QTest::qWait(20);
    QCOMPARE(drawn.size(), 0);
    show(plot, {500, 300});
    QTRY_VERIFY(!drawn.isEmpty());
    QVERIFY(plot.axisRect()->width() > 300);
  }

  void an_unfinished_run_takes_no_float_line_away() {
    Selection selection;
    test::fill_demo(selection);
    QVERIFY(gatherAccuracy(selection, {}).floatModel);
    RunReport begun;
    begun.id = begun.name = "begun";
    selection.putRun(std::make_shared<const RunReport>(begun));
    selection.setShown("begun", true);
    QVERIFY(gatherAccuracy(selection, {}).floatModel);
    QVERIFY(!errorConditions(selection).contains("differ"));
  }

  void conditions_say_on_how_many_tokens_errors_were_measured() {
    Selection selection;
    for (const int64_t tokens : {1024, 512}) {
      RunReport run;
      run.id = run.name = std::to_string(tokens);
      run.calibration_tokens = 65536;
      run.blocks.emplace_back().linears.emplace_back().measured_tokens = tokens;
      selection.putRun(std::make_shared<const RunReport>(run));
      selection.setShown(QString::number(tokens), true);
      if (tokens == 1024) QVERIFY(errorConditions(selection).contains(QLocale().toString(1024)));
    }
    QVERIFY(errorConditions(selection).contains("differ"));
  }

  void many_linears_redraw_fast() {
    Selection selection;
    for (int run = 0; run < 6; ++run) {
      auto report = std::make_shared<RunReport>();
      report->id = std::to_string(run);
      for (int block = 0; block < 200; ++block) {
        report->blocks.push_back({block, {}});
        for (int i = 0; i < 32; ++i) {
          LinearReport linear;
          linear.block = block;
          linear.name = "mlp.experts." + std::to_string(i) + ".up_proj";
          linear.output_relative_error = 0.01 * (1 + (block * 31 + i * 7 + run * 13) % 97);
          report->blocks.back().linears.push_back(linear);
        }
      }
      selection.putRun(report);
      selection.setShown(QString::number(run), true);
    }
    selection.setCurrentRun("0");
    QElapsedTimer clock;
    clock.start();
    const LinearErrors errors = gatherErrors(selection);
    const QVector<int> rows = orderedRows(errors, LinearOrder::Value, {});
    const double gather = clock.nsecsElapsed() / 1e6;
    QCOMPARE(rows.size(), 6400);
    LinearErrorsPlot plot;
    plot.setLogarithmic(true);
    plot.setData(errors, rows, false);
    show(plot, {700, 280});
    double best = 1e9;
    for (int i = 0; i < 20; ++i) {
      clock.restart();
      plot.replot(QCustomPlot::rpImmediateRefresh);
      best = std::min(best, clock.nsecsElapsed() / 1e6);
    }
    qInfo("gather and sort %.1f ms, redraw %.1f ms", gather, best);
    QVERIFY2(best < 60, "redraw of 38 400 points");  // 16 ms is the aim; room for slow machines
    QVERIFY2(gather < 400, "gathering 38 400 values");
  }
};

QTEST_MAIN(TestPlots)
#include "test_plots.moc"
