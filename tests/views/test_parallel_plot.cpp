#include <QMenu>
#include <QRegularExpression>
#include <QSignalSpy>
#include <QTemporaryDir>
#include <QtTest/QtTest>
#include <cmath>

#include "demo_reports.h"
#include "views/models/LinearErrors.h"
#include "views/pages/AccuracyPage.h"
#include "views/plots/ParallelPlot.h"

using namespace qb;
using namespace qb::views;

namespace {

Recipe recipeOf(int bits, int64_t group, const std::string& method, std::map<std::string, KnobValue> knobs = {}) {
  Recipe recipe;
  recipe.scheme.weights = QuantSpec{};
  recipe.scheme.weights->type.bits = bits;
  recipe.scheme.weights->group_size = group;
  recipe.pipeline.push_back({method, std::move(knobs)});
  return recipe;
}

// A sweep of four runs and their recipes: "a" … "d".
AccuracyPage::Recipes fillSweep(Selection& selection) {
  AccuracyPage::Recipes recipes;
  const struct {
    const char* id;
    int bits;
    int64_t group;
    const char* method;
    std::map<std::string, KnobValue> knobs;
    double perplexity;
  } runs[] = {{"a", 4, 64, "rtn", {}, 24}, {"b", 4, 128, "gptq", {{"percdamp", 0.01}}, 23}, {"c", 3, 64, "gptq", {{"percdamp", 0.1}}, 30}, {"d", 3, 128, "rtn", {}, 40}};
  unsigned seed = 0;
  for (const auto& run : runs) {
    test::DemoOptions options{run.id, run.id, 2, double(run.bits), 1, ++seed, false, run.perplexity};
    selection.putRun(test::demo_run(options));
    selection.setShown(run.id, true);
    recipes.insert(run.id, std::make_shared<const Recipe>(recipeOf(run.bits, run.group, run.method, run.knobs)));
  }
  return recipes;
}

const QStringList kAll{"a", "b", "c", "d"};

int axisOf(const RunAxes& axes, const QString& title) {
  for (int axis = 0; axis < int(axes.axes.size()); ++axis)
    if (axes.axes[axis].title == title) return axis;
  return -1;
}

void show(QWidget& widget, const QSize& size) {
  widget.resize(size);
  widget.show();
  QVERIFY(QTest::qWaitForWindowExposed(&widget));
  QTest::qWait(60);
}

void drag(ParallelPlot& plot, const QString& title, double from, double to) {
  const int axis = axisOf(plot.data(), title);
  QVERIFY(axis >= 0);
  const QPoint start = plot.pixelOf(axis, from).toPoint(), end = plot.pixelOf(axis, to).toPoint();
  QTest::mousePress(&plot, Qt::LeftButton, {}, start);
  QMouseEvent move(QEvent::MouseMove, end, plot.mapToGlobal(end), Qt::NoButton, Qt::LeftButton, {});
  QApplication::sendEvent(&plot, &move);
  QTest::mouseRelease(&plot, Qt::LeftButton, {}, end);
}

}  // namespace

class TestParallelPlot : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void axes_are_what_recipes_differ_in_and_what_came_of_it() {
    Selection selection;
    const auto recipes = fillSweep(selection);
    const RunAxes axes = gatherAxes(selection, kAll, recipes);
    QStringList titles;
    for (const RunAxes::Axis& axis : axes.axes) titles << axis.title;
    QCOMPARE(titles, QStringList({"Weights", "Group size", "Pipeline", titles.value(3), "Bits per weight", "Time", "Perplexity"}));
    QVERIFY2(titles[3].startsWith("gptq: "), qPrintable(titles[3]));
    // Settings are categories, in the order of their numbers: 64 below 128.
    QCOMPARE(axes.axes[0].categories, QStringList({"int3", "int4"}));
    QCOMPARE(axes.axes[1].categories, QStringList({"64", "128"}));
    QCOMPARE(axes.runs[1].values[1], 1.0);
    QCOMPARE(axes.axes[1].place(0), 0.25);
    // A knob of gptq alone: nothing is known of runs without it.
    QVERIFY(std::isnan(axes.runs[0].values[3]) && std::isnan(axes.runs[3].values[3]));
    QCOMPARE(axes.axes[3].text(axes.runs[2].values[3]), QString("0.1"));
    QCOMPARE(axes.axes[3].text(axes.runs[0].values[3]), QStringLiteral("–"));
    // Figures span their values, from round to round, and say which end is better.
    const RunAxes::Axis& perplexity = axes.axes.last();
    QCOMPARE(perplexity.better, -1);
    QVERIFY(!perplexity.logarithmic && perplexity.low <= 23 && perplexity.low > 15 && perplexity.high >= 40 && perplexity.high < 48);
    QVERIFY(std::abs(perplexity.place(perplexity.low)) < 1e-12 && std::abs(perplexity.place(perplexity.high) - 1) < 1e-12);
    QVERIFY(perplexity.ticks().size() >= 3 && perplexity.ticks().contains(30));
    QCOMPARE(axes.runs[3].values.last(), 40.0);
    QCOMPARE(axes.axes[5].heading(), QString("Time (s)"));
  }

  void runs_without_recipes_differ_by_what_their_reports_say() {
    Selection selection;
    fillSweep(selection);
    const RunAxes axes = gatherAxes(selection, kAll, {});
    QCOMPARE(axes.axes.first().title, QString("Scheme"));
    QCOMPARE(axes.axes.first().categories, QStringList({"W3A16 g64", "W4A16 g64"}));
    QCOMPARE(axisOf(axes, "Group size"), -1);
  }

  void figures_far_apart_are_logarithmic_and_what_was_not_measured_is_a_gap() {
    Selection selection;
    const auto recipes = fillSweep(selection);
    auto broken = std::make_shared<RunReport>(*selection.find("d")->report);
    broken->evaluations = {test::demo_perplexity(21.7, true, 1), test::demo_perplexity(2300, false, 3)};
    selection.putRun(broken);
    auto unmeasured = std::make_shared<RunReport>(*selection.find("a")->report);
    unmeasured->evaluations.clear();
    selection.putRun(unmeasured);
    const RunAxes axes = gatherAxes(selection, kAll, recipes);
    const RunAxes::Axis& perplexity = axes.axes.last();
    QVERIFY(perplexity.logarithmic);
    QVERIFY(std::abs(perplexity.place(std::sqrt(23.0 * 2300.0)) - 0.5) < 1e-9);
    QVERIFY(std::isnan(axes.runs[0].values.last()));
    ParallelPlot plot;
    plot.setData(axes);
    show(plot, {800, 300});
    QVERIFY(!plot.isEmpty());
    QCOMPARE(plot.table().rows[0].last(), QVariant());
    QCOMPARE(plot.table().rows[3].last().toDouble(), 2300.0);
    int gaps = 0;
    for (int i = 0; i < plot.graphCount(); ++i) gaps += std::isnan((plot.graph(i)->data()->constEnd() - 1)->value);
    QCOMPARE(gaps, 1);
  }

  void a_stretch_narrows_to_its_runs_and_a_double_click_takes_it_back() {
    Selection selection;
    const auto recipes = fillSweep(selection);
    AccuracyPage page(&selection);
    page.setRecipeReader([&](const QStringList& runs, const auto& then) {
      QCOMPARE(runs, kAll);  // each once
      then(recipes);
    });
    connect(&page, &AccuracyPage::onlyWanted, &selection, [&](const QStringList& runs) {
      for (const QString& id : kAll) selection.setShown(id, runs.contains(id));
    });
    const auto shown = [&] {
      QStringList ids;
      for (const RunEntry& run : selection.shownRuns()) ids << run.id;
      return ids;
    };
    show(page, {900, 1100});
    auto* plot = page.findChild<ParallelPlot*>();
    QTRY_VERIFY(axisOf(plot->data(), "Group size") >= 0);
    QTest::qWait(60);

    drag(*plot, "Weights", 0.5, 1.03);  // int4
    QCOMPARE(shown(), QStringList({"a", "b"}));
    QTest::qWait(120);
    QCOMPARE(plot->data().runs.size(), 4);  // the others stay, in grey
    QVERIFY(plot->title().contains("2 of 4"));
    drag(*plot, "Perplexity", 0.5, -0.03);  // below the middle: a and b too, so nothing changes
    QCOMPARE(shown(), QStringList({"a", "b"}));
    drag(*plot, "Group size", 0.5, 1.03);  // 128
    QCOMPARE(shown(), QStringList({"b"}));
    QTest::qWait(120);
    QTest::mouseDClick(plot, Qt::LeftButton, {}, plot->rect().center());
    QCOMPARE(shown(), kAll);
    QVERIFY(!plot->isBrushed());
    QTest::qWait(120);

    // Another run is shown elsewhere: the stretch is gone, for it told which runs to look at.
    selection.setShown("c", false);
    QTest::qWait(120);
    QCOMPARE(plot->data().runs.size(), 3);
    drag(*plot, "Weights", 0.5, 1.03);
    QTest::qWait(120);
    QVERIFY(plot->isBrushed());
    selection.setShown("c", true);
    QTest::qWait(120);
    QVERIFY(!plot->isBrushed());
    QCOMPARE(plot->data().runs.size(), 3);
  }

  void a_stretch_without_runs_is_not_taken_and_a_click_takes_one_back() {
    Selection selection;
    const auto recipes = fillSweep(selection);
    ParallelPlot plot;
    plot.setData(gatherAxes(selection, kAll, recipes));
    show(plot, {900, 320});
    QSignalSpy brushed(&plot, &ParallelPlot::brushed), released(&plot, &ParallelPlot::released);
    drag(plot, "Weights", 0.4, 0.6);  // between the categories
    QCOMPARE(brushed.size(), 0);
    QVERIFY(!plot.isBrushed());
    drag(plot, "Weights", 0.6, 0.9);
    QCOMPARE(brushed.size(), 1);
    QCOMPARE(brushed[0][0].toStringList(), QStringList({"a", "b"}));
    drag(plot, "Pipeline", 0.4, 0.6);
    QCOMPARE(plot.inside(), QStringList({"a", "b"}));
    // Of knobs that a run does not have no stretch keeps it.
    const int knob = axisOf(plot.data(), "Pipeline") + 1;
    plot.setBrush(plot.data().axes[knob].key, 0, 1);
    QCOMPARE(plot.inside(), QStringList({"b"}));
    plot.setBrush(plot.data().axes[knob].key, 0, 0);
    QTest::mouseClick(&plot, Qt::LeftButton, {}, plot.pixelOf(axisOf(plot.data(), "Weights"), 0.3).toPoint());
    QCOMPARE(released.size(), 1);
    QCOMPARE(plot.inside(), kAll);
  }

  void a_line_is_named_and_chosen() {
    Selection selection;
    const auto recipes = fillSweep(selection);
    ParallelPlot plot;
    plot.setData(gatherAxes(selection, kAll, recipes));
    show(plot, {1000, 320});
    const RunAxes& axes = plot.data();
    const int time = axisOf(axes, "Time"), last = time + 1;
    const auto& values = axes.runs[3].values;  // the worst perplexity: no other line is near
    const double place = 0.2 * axes.axes[time].place(values[time]) + 0.8 * axes.axes[last].place(values[last]);
    const QPointF at(plot.pixelOf(time, 0).x() * 0.2 + plot.pixelOf(last, 0).x() * 0.8, plot.pixelOf(time, place).y());
    QVERIFY2(plot.describe(at).startsWith("d\n") && plot.describe(at).contains("Weights: int3"), qPrintable(plot.describe(at)));
    QVERIFY(plot.describe(plot.pixelOf(last, 1)).contains("lower is better"));
    QSignalSpy chosen(&plot, &ParallelPlot::runChosen);
    QTest::mouseClick(&plot, Qt::LeftButton, {}, at.toPoint());
    QCOMPARE(chosen.size(), 1);
    QCOMPARE(chosen[0][0].toString(), QString("d"));
  }

  void pictures_leave_with_all_lines_and_the_numbers_with_their_units() {
    Selection selection;
    const auto recipes = fillSweep(selection);
    ParallelPlot plot;
    plot.setData(gatherAxes(selection, kAll, recipes));
    show(plot, {900, 320});
    QTemporaryDir folder;
    plot.save(folder.filePath("runs.svg"));
    plot.save(folder.filePath("runs.csv"));
    QFile svg(folder.filePath("runs.svg")), csv(folder.filePath("runs.csv"));
    QVERIFY(svg.open(QIODevice::ReadOnly) && csv.open(QIODevice::ReadOnly));
    const QByteArray picture = svg.readAll();
    for (const char* text : {"Group", "Perplexity", "int4", "better"}) QVERIFY2(picture.contains(text), text);
    const QStringList lines = QString::fromUtf8(csv.readAll()).split(QRegularExpression("\r?\n"), Qt::SkipEmptyParts);
    QCOMPARE(lines.size(), 5);
    QVERIFY2(lines[0].startsWith("run,Weights,Group size,Pipeline,") && lines[0].endsWith("Bits per weight,Time (s),Perplexity"), qPrintable(lines[0]));
    QVERIFY2(lines[1].startsWith("a,int4,64,rtn,,") && lines[1].endsWith(",24"), qPrintable(lines[1]));
  }

  void many_runs_are_coloured_by_a_figure_with_a_bar() {
    Selection selection;
    test::fill_many(selection, 20, 2);
    QStringList ids;
    for (const RunEntry& run : selection.shownRuns()) ids << run.id;
    ParallelPlot plot;
    plot.setData(gatherAxes(selection, ids, {}));
    show(plot, {900, 320});
    auto* bar = plot.findChild<QCPColorScale*>();
    QVERIFY(bar && bar->visible());
    QCOMPARE(bar->label(), QString("Perplexity"));
    QVERIFY(plot.colourOf(0) != plot.data().runs[0].colour);
    plot.setColouring("bits");
    QCOMPARE(bar->label(), QString("Bits per weight"));
    // Few runs have their own colours, and no bar takes room.
    const int narrow = plot.axisRect()->width();
    plot.setColouring({});
    plot.setData(gatherAxes(selection, ids.mid(0, kMostColours), {}));
    QTest::qWait(60);
    QVERIFY(!bar->visible());
    QVERIFY(plot.axisRect()->width() > narrow);
    QCOMPARE(plot.colourOf(0), plot.data().runs[0].colour);
  }

  void labels_do_not_collide() {
    Selection selection;
    test::fill_many(selection, 40, 2);
    QStringList ids;
    for (const RunEntry& run : selection.shownRuns()) ids << run.id;
    ParallelPlot plot;
    AccuracyPage::Recipes recipes;
    for (int i = 0; i < int(ids.size()); ++i) recipes.insert(ids[i], std::make_shared<const Recipe>(recipeOf(2 + i % 3, 32 << (i % 3), i % 2 ? "gptq" : "rtn")));
    for (int i = 0; i < int(ids.size()); ++i) {
      auto recipe = std::make_shared<Recipe>(*recipes[ids[i]]);
      recipe->seed = uint64_t(i);  // forty categories
      recipes[ids[i]] = recipe;
    }
    plot.setData(gatherAxes(selection, ids, recipes));
    for (const QSize& size : {QSize(420, 210), QSize(1200, 400)}) {
      show(plot, size);
      plot.replot();
      QVector<QRectF> taken;
      for (int i = 0; i < plot.itemCount(); ++i) {
        auto* text = qobject_cast<QCPItemText*>(plot.item(i));
        if (!text || !text->visible()) continue;
        const QPointF topLeft = text->topLeft->pixelPosition();
        const QRectF padded(topLeft, text->bottomRight->pixelPosition());
        const QMargins inner = text->padding();
        const QRectF box = padded.adjusted(inner.left(), inner.top(), -inner.right(), -inner.bottom()).adjusted(1, 2, -1, -2);
        for (const QRectF& other : taken) QVERIFY2(!box.intersects(other), qPrintable(text->text()));
        QVERIFY2(QRectF(plot.rect()).contains(box), qPrintable(text->text()));
        taken.push_back(box);
      }
      QVERIFY(taken.size() >= 12);
    }
  }
};

QTEST_MAIN(TestParallelPlot)
#include "test_parallel_plot.moc"
