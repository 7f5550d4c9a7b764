#include <QAbstractItemModelTester>
#include <QAction>
#include <QLabel>
#include <QTableView>
#include <QTemporaryDir>
#include <QTextBrowser>
#include <QTextFrame>
#include <QtTest/QtTest>
#include <fstream>

#include "core/base/resources.h"
#include "views/MainWindow.h"
#include "views/pages/HelpWindow.h"
#include "views/pages/NoticeBar.h"
#include "views/pages/SweepDialog.h"

using namespace qb;
using namespace qb::views;

// Real recipes of the demo model, really carried out.
class TestSweepDialog : public QObject {
  Q_OBJECT

  struct Bench {
    QTemporaryDir folder;
    Settings settings;
    Theme theme;
    std::unique_ptr<Workbench> workbench;
    std::unique_ptr<MainWindow> window;

    Bench() : settings(folder.filePath("settings.ini")) {
      Services services = coreServices();
      services.carryOut = [](Workspace& workspace, const std::string& id, const RunOptions& options, const Control& control, const RunObserver& observer) {
        return carry_out(workspace, id, options, control, observer);  // in this process: the command line need not be built
      };
      workbench = std::make_unique<Workbench>(services);
      window = std::make_unique<MainWindow>(workbench.get(), &settings, &theme);
      window->restoreSession({}, folder.filePath("workspace"));
      window->show();
      workbench->prepare(0);
    }
    ~Bench() {
      window.reset();
      workbench.reset();
    }
    QString write(const std::string& types, const std::string& sizes = "64", const std::string& block = "") {
      const QString path = folder.filePath("sweep.yaml");
      const std::string demo = resource("demo").string();
      std::ofstream(path.toStdString()) << block << "model: {path: '" << demo << "', dtype: float32}\ncalibration: {corpus: '" << demo << "/calibration.txt', samples: 2, seq_len: 64}\n"
                                        << "scheme: {weights: {type: " << types << ", group_size: " << sizes << "}}\npipeline: [[rtn], [gptq]]\nevaluation: [{corpus: '" << demo << "/evaluation.txt', seq_len: 64, windows: 2}]\n";
      return path;
    }
    SweepDialog* dialog() {
      for (SweepDialog* each : window->findChildren<SweepDialog*>())
        if (!each->isHidden()) return each;
      return nullptr;
    }
    bool opened() {
      return QTest::qWaitFor([&] { return dialog() && workbench->background()->idle() && dialog()->table()->rowCount() > 0; }, 30000);
    }
    bool ready() {
      return QTest::qWaitFor([&] { return workbench->workspace() && workbench->background()->idle(); }, 30000);
    }
  };

  static int column(SweepTable* table, const QString& title) {
    for (int c = 0; c < table->columnCount(); ++c)
      if (table->headerData(c, Qt::Horizontal, Qt::DisplayRole).toString() == title) return c;
    return -1;
  }
  static QString cell(SweepTable* table, int row, const QString& title) { return table->index(row, column(table, title)).data().toString(); }

 private Q_SLOTS:
  void initTestCase() { QLocale::setDefault(QLocale::c()); }

  void a_sweep_is_shown_and_what_is_chosen_is_queued() {
    Bench bench;
    QVERIFY(bench.ready());
    bench.workbench->openPath(bench.write("[int3, int4]", "64", "sweep: {name: two by two}\n"));
    QVERIFY(bench.opened());
    SweepDialog* dialog = bench.dialog();
    SweepTable* table = dialog->table();
    QAbstractItemModelTester tester(table);
    QCOMPARE(dialog->windowTitle(), QStringLiteral("Sweep two by two"));
    QCOMPARE(table->rowCount(), 4);
    QCOMPARE(cell(table, 0, "Recipe"), QStringLiteral("int3 rtn"));
    QCOMPARE(cell(table, 3, "type"), QStringLiteral("int4"));
    QCOMPARE(cell(table, 3, "pipeline"), QStringLiteral("[gptq]"));
    QVERIFY(cell(table, 0, "Time").endsWith('?'));  // nothing was measured yet
    QCOMPARE(cell(table, 0, "State"), QStringLiteral("new"));
    QCOMPARE(dialog->queueButton()->text(), QStringLiteral("&Queue 4 runs"));
    QVERIFY(table->setData(table->index(3, 0), Qt::Unchecked, Qt::CheckStateRole));
    QCOMPARE(dialog->queueButton()->text(), QStringLiteral("&Queue 3 runs"));
    QVERIFY(table->summary().startsWith(QStringLiteral("3 runs, about ")));
    dialog->queueButton()->click();
    QVERIFY(QTest::qWaitFor([&] { return bench.workbench->queue()->jobs().size() == 3 && !bench.workbench->queue()->isBusy(); }, 60000));
    const auto workspace = bench.workbench->workspace();
    const auto runs = workspace->list();
    QCOMPARE(runs.size(), size_t{3});
    for (const RunReport& run : runs) {
      QCOMPARE(run.status, RunStatus::finished);
      QCOMPARE(run.sweep, std::string("two by two"));
    }
    // What is done is left out, and what runs of the kind took is known now.
    bench.workbench->openPath(bench.write("[int3, int4, int5]", "64", "sweep: {name: two by two}\n"));
    QVERIFY(bench.opened());
    table = bench.dialog()->table();
    QCOMPARE(table->rowCount(), 6);
    QStringList states, times;
    for (int row = 0; row < 6; ++row) {
      states << cell(table, row, "State");
      times << cell(table, row, "Time");
      QCOMPARE(table->flags(table->index(row, 0)).testFlag(Qt::ItemIsUserCheckable), states.last() == "new");
    }
    QCOMPARE(states.count("done"), 3);
    QCOMPARE(times.count(QStringLiteral("–")), 3);
    QVERIFY(times.filter("?").isEmpty());
    QCOMPARE(bench.dialog()->queueButton()->text(), QStringLiteral("&Queue 3 runs"));
    table->setAll(false);
    QVERIFY(!bench.dialog()->queueButton()->isEnabled());
    table->setAll(true);
    QCOMPARE(bench.dialog()->queueButton()->text(), QStringLiteral("&Queue 3 runs"));
  }

  void what_does_not_fit_is_told_and_mistakes_have_their_place() {
    Bench bench;
    QVERIFY(bench.ready());
    const QString path = bench.write("int4", "[64, 48]", "sweep: {exclude: {pipeline: [gptq]}}\n");
    bench.workbench->openPath(path);
    QVERIFY(bench.opened());
    SweepDialog* dialog = bench.dialog();
    QCOMPARE(dialog->table()->rowCount(), 2);
    QCOMPARE(cell(dialog->table(), 1, "State"), QStringLiteral("does not fit"));
    QVERIFY(dialog->omissions().contains(QStringLiteral("g48: ")));
    QVERIFY(dialog->omissions().contains(QStringLiteral("sweep.exclude")));
    QCOMPARE(dialog->queueButton()->text(), QStringLiteral("&Queue 1 run"));
    // The file is mended, then broken.
    bench.write("int4", "[64, 32]");
    dialog->survey();
    QVERIFY(QTest::qWaitFor([&] { return bench.workbench->background()->idle() && dialog->table()->rowCount() == 4; }, 30000));
    bench.write("[int4, int44]");
    dialog->survey();
    QVERIFY(QTest::qWaitFor([&] { return bench.workbench->background()->idle() && !dialog->notices()->text().isEmpty(); }, 30000));
    QVERIFY(dialog->notices()->text().contains(QStringLiteral("sweep.yaml:3:")) && dialog->notices()->text().contains(QStringLiteral("int44")));
    QVERIFY(!dialog->queueButton()->isEnabled());
  }

  void one_recipe_opens_as_a_recipe() {
    Bench bench;
    QVERIFY(bench.ready());
    bench.workbench->openPath(QString::fromStdString((resource("demo") / "recipes" / "w4.yaml").string()));
    QVERIFY(QTest::qWaitFor([&] { return bench.workbench->background()->idle() && bench.workbench->document()->recipe().name == "Demo W4 g64"; }, 30000));
    QVERIFY(!bench.dialog());
  }

  void the_page_on_large_studies_is_reached_from_the_menu() {
    Bench bench;
    QAction* found = nullptr;
    for (QAction* action : bench.window->actions())
      if (QString(action->text()).remove('&') == "Planning a large study") found = action;
    QVERIFY(found);
    found->trigger();
    auto* help = bench.window->findChild<HelpWindow*>();
    QVERIFY(help);
    QVERIFY(QTest::qWaitFor([&] { return help->browser()->toPlainText().contains("70B"); }, 20000));
    QVERIFY(help->windowTitle().startsWith("Five hundred experiments"));
    QVERIFY(help->browser()->document()->rootFrame()->childFrames().size() >= 5);  // tables
    found->trigger();
    QCOMPARE(bench.window->findChildren<HelpWindow*>().size(), qsizetype(1));
  }
};

QTEST_MAIN(TestSweepDialog)
#include "test_sweep_dialog.moc"
