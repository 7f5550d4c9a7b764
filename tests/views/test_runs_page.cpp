#include <QAbstractItemModelTester>
#include <QAction>
#include <QClipboard>
#include <QComboBox>
#include <QElapsedTimer>
#include <QHeaderView>
#include <QInputDialog>
#include <QLabel>
#include <QLineEdit>
#include <QMenu>
#include <QMessageBox>
#include <QPushButton>
#include <QTemporaryDir>
#include <QTreeView>
#include <QtTest/QtTest>

#include "core/base/files.h"
#include "core/measure/report_json.h"
#include "fake_services.h"
#include "views/Workbench.h"
#include "views/models/RunTable.h"
#include "views/pages/RunsPage.h"

using namespace qb;
using namespace qb::views;

class TestRunsPage : public QObject {
  Q_OBJECT

  // The page on a real workspace of made-up runs.
  struct Bench {
    QTemporaryDir folder;
    std::shared_ptr<test::Pace> pace = std::make_shared<test::Pace>();
    std::filesystem::path place = std::filesystem::path(folder.path().toStdString()) / "ws";
    std::shared_ptr<Workspace> files = Workspace::open(place);
    std::unique_ptr<Workbench> workbench;
    std::unique_ptr<RunsPage> page;
    std::unique_ptr<QAbstractItemModelTester> tester;

    // A finished run with these figures; returns its id.
    std::string add(const std::string& name, const std::string& scheme, const std::string& pipeline, double perplexity, const std::string& sweep = {}) {
      RunReport report = files->load(files->create_run(test::fake_recipe(name)));
      report.status = RunStatus::finished;
      report.scheme = scheme;
      report.pipeline = pipeline;
      report.sweep = sweep;
      report.model_hash = "hash of tiny";
      report.bits_per_weight = 4.25;
      EvaluationResult result;
      result.corpus = "text";
      result.put({"perplexity", perplexity});
      if (perplexity > 0) report.evaluations.push_back(result);
      result.float_model = true;
      result.put({"perplexity", 20});
      report.evaluations.push_back(result);
      files->save(report);
      return report.id;
    }
    bool open(int runs, bool watch = true) {
      workbench = std::make_unique<Workbench>(test::fake_services(pace));
      page = std::make_unique<RunsPage>(workbench.get());
      if (watch) tester = std::make_unique<QAbstractItemModelTester>(model(), QAbstractItemModelTester::FailureReportingMode::QtTest);
      page->resize(1200, 600);
      page->show();
      workbench->openWorkspace(QString::fromStdString(place.string()));
      return QTest::qWaitFor([&] { return workbench->selection()->runs().size() == runs && model()->shownRuns() == runs; });
    }
    ~Bench() {
      page.reset();
      workbench.reset();
    }
    RunTable* model() { return qobject_cast<RunTable*>(page->table()->model()); }
    // What stands in a column, from the top, as the view draws it: groups folded leave out their runs.
    QStringList column(const char* key) {
      QStringList texts;
      QTreeView* view = page->table();
      for (QModelIndex at = view->model()->index(0, 0); at.isValid(); at = view->indexBelow(at)) {
        const bool group = !at.data(RunList::IdRole).isValid();
        texts << at.siblingAtColumn(group ? 0 : RunTable::columnOf(key)).data().toString();
      }
      return texts;
    }
    bool isShown(const char* key) { return !page->table()->header()->isSectionHidden(RunTable::columnOf(key)); }
    void select(const QStringList& names) {
      page->table()->clearSelection();
      for (const RunEntry& run : workbench->selection()->runs())
        if (names.contains(QString::fromStdString(run.report->name)))
          page->table()->selectionModel()->select(model()->indexOf(run.id), QItemSelectionModel::Select | QItemSelectionModel::Rows);
    }
    QString label(const QString& part) {
      for (QLabel* label : page->findChildren<QLabel*>())
        if (label->isVisible() && label->text().contains(part)) return label->text();
      return {};
    }
    QAction* columnAction(QMenu& menu, const QString& text) {
      page->fillColumnMenu(&menu);
      for (QAction* action : menu.actions())
        if (action->text() == text) return action;
      return nullptr;
    }
  };

 private Q_SLOTS:
  void initTestCase() { QLocale::setDefault(QLocale::c()); }

  void columns_have_the_titles_units_and_figures_of_the_table_of_core() {
    Bench bench;
    bench.add("a", "int4 g64", "rtn", 25.5);
    QVERIFY(bench.open(1));
    for (const RunColumn& column : run_columns()) {
      const int section = RunTable::columnOf(column.key.c_str());
      QCOMPARE(bench.model()->headerData(section, Qt::Horizontal, Qt::DisplayRole).toString(), QString::fromStdString(column_heading(column)));
      QCOMPARE(bench.isShown(column.key.c_str()), column.standard);
    }
    QCOMPARE(bench.column("ppl"), QStringList{"25.5000"});
    QCOMPARE(bench.column("delta"), QStringList{"+5.5000"});  // above the float model's
    QCOMPARE(bench.column("status"), QStringList{"Finished"});
    QCOMPARE(bench.column("time"), QStringList{"–"});
    QCOMPARE(bench.label("run"), QString("1 run"));
  }

  void columns_are_chosen_in_the_heading_and_kept() {
    Bench bench;
    bench.add("a", "int4 g64", "rtn", 25.5);
    QVERIFY(bench.open(1));
    QMenu menu;
    QAction* seed = bench.columnAction(menu, "Seed");
    QVERIFY(seed && !seed->isChecked());
    seed->trigger();
    QVERIFY(bench.isShown("seed"));
    bench.columnAction(menu, "Scheme")->trigger();
    QVERIFY(!bench.isShown("scheme"));
    bench.page->grouping()->setCurrentIndex(bench.page->grouping()->findData("pipeline"));
    bench.page->table()->sortByColumn(RunTable::columnOf("ppl"), Qt::DescendingOrder);
    const QByteArray state = bench.page->saveState();
    bench.page->table()->sortByColumn(-1, Qt::AscendingOrder);
    for (QAction* action : menu.actions())
      if (action->text() == "Standard columns") action->trigger();
    QVERIFY(!bench.isShown("seed") && bench.isShown("scheme"));
    bench.page->grouping()->setCurrentIndex(0);
    bench.page->restoreState(state);
    QVERIFY(bench.isShown("seed") && !bench.isShown("scheme") && bench.isShown("name"));
    QCOMPARE(bench.page->grouping()->currentData().toString(), QString("pipeline"));
    QCOMPARE(bench.page->table()->header()->sortIndicatorSection(), RunTable::columnOf("ppl"));
    bench.page->restoreState("nonsense");
    QVERIFY(bench.isShown("seed"));
  }

  void the_newest_run_is_first_until_a_heading_is_clicked() {
    Bench bench;
    bench.add("a", "int4 g64", "rtn", 30);
    bench.add("b", "int4 g64", "rtn", 0);  // without a figure
    bench.add("c", "int4 g64", "rtn", 22);
    QVERIFY(bench.open(3));
    QStringList newest = bench.column("id");
    std::sort(newest.begin(), newest.end(), std::greater<>());
    QCOMPARE(bench.column("id"), newest);
    bench.page->table()->sortByColumn(RunTable::columnOf("ppl"), Qt::AscendingOrder);
    QTRY_COMPARE(bench.column("ppl"), (QStringList{"22.0000", "30.0000", "–"}));
    bench.page->table()->sortByColumn(RunTable::columnOf("ppl"), Qt::DescendingOrder);
    QTRY_COMPARE(bench.column("ppl"), (QStringList{"30.0000", "22.0000", "–"}));
  }

  void the_filter_takes_words_and_conditions_and_says_what_it_does_not_understand() {
    Bench bench;
    bench.add("first", "int4 g64", "rtn", 30);
    bench.add("second", "int3 g64", "awq → gptq", 22);
    bench.add("third", "int3 g128", "gptq", 40);
    QVERIFY(bench.open(3));
    bench.page->table()->sortByColumn(RunTable::columnOf("ppl"), Qt::AscendingOrder);
    QTest::keyClicks(bench.page->filter(), "gptq");
    QTRY_COMPARE(bench.column("name"), (QStringList{"second", "third"}));
    QVERIFY(!bench.label("2 of 3 runs").isEmpty());
    QTest::keyClicks(bench.page->filter(), " ppl<30");
    QTRY_COMPARE(bench.column("name"), QStringList{"second"});
    QTest::keyClicks(bench.page->filter(), " speed>3");
    QTRY_VERIFY(bench.label("speed").contains("ppl"));     // what there is
    QCOMPARE(bench.column("name"), QStringList{"second"});  // as it was
    bench.page->filter()->setText("nothing like this");
    QTRY_VERIFY(!bench.label("No run passes the filter").isEmpty());
    QVERIFY(bench.label("speed").isEmpty());
    bench.page->filter()->clear();
    QTRY_COMPARE(bench.column("name"), (QStringList{"second", "first", "third"}));
  }

  void groups_tell_their_size_and_best_and_stay_folded() {
    Bench bench;
    bench.add("a", "int4 g64", "rtn", 30, "night");
    bench.add("b", "int3 g64", "rtn", 22, "night");
    bench.add("c", "int3 g64", "gptq", 40);
    QVERIFY(bench.open(3));
    bench.page->table()->sortByColumn(RunTable::columnOf("ppl"), Qt::AscendingOrder);
    bench.page->grouping()->setCurrentIndex(bench.page->grouping()->findData("scheme"));
    QTRY_COMPARE(bench.column("name"), (QStringList{"int3 g64   (2 runs, lowest perplexity 22.0000)", "b", "c", "int4 g64   (1 run, lowest perplexity 30.0000)", "a"}));
    const QRect eye = bench.page->table()->visualRect(bench.model()->index(0, 0, bench.model()->index(0, 0)));
    QVERIFY2(eye.width() >= 44, qPrintable(QString::number(eye.width())));  // the mark is not cut
    QVERIFY(bench.page->table()->isFirstColumnSpanned(0, {}) && !bench.page->table()->isFirstColumnSpanned(0, bench.model()->index(0, 0)));
    bench.page->table()->collapse(bench.model()->index(0, 0));
    bench.page->filter()->setText("ppl<35");
    QTRY_COMPARE(bench.column("name"), (QStringList{"int3 g64   (1 run, lowest perplexity 22.0000)", "int4 g64   (1 run, lowest perplexity 30.0000)", "a"}));
    bench.page->filter()->clear();
    bench.page->grouping()->setCurrentIndex(bench.page->grouping()->findData("sweep"));
    QTRY_COMPARE(bench.column("name"), (QStringList{"night   (2 runs, lowest perplexity 22.0000)", "b", "a", "no sweep   (1 run, lowest perplexity 40.0000)", "c"}));
    bench.page->grouping()->setCurrentIndex(0);
    QTRY_COMPARE(bench.column("name"), (QStringList{"b", "a", "c"}));
  }

  void delta_follows_the_baseline() {
    Bench bench;
    const std::string a = bench.add("a", "int4 g64", "rtn", 30);
    bench.add("b", "int3 g64", "rtn", 22);
    QVERIFY(bench.open(2));
    bench.page->table()->sortByColumn(RunTable::columnOf("name"), Qt::AscendingOrder);
    QTRY_COMPARE(bench.column("delta"), (QStringList{"+10.0000", "+2.0000"}));
    bench.workbench->selection()->setBaseline(QString::fromStdString(a));
    QTRY_COMPARE(bench.column("delta"), (QStringList{"+0.0000", "-8.0000"}));
    QVERIFY(bench.model()->indexOf(QString::fromStdString(a), 1).data(Qt::FontRole).value<QFont>().bold());
  }

  void tags_notes_and_names_are_written_into_the_runs_folder() {
    Bench bench;
    const std::string a = bench.add("a", "int4 g64", "rtn", 30), b = bench.add("b", "int3 g64", "rtn", 22);
    QVERIFY(bench.open(2));
    const auto edit = [&](const std::string& id, const char* key, const QString& text) {
      const QModelIndex cell = bench.model()->indexOf(QString::fromStdString(id), RunTable::columnOf(key));
      QVERIFY(cell.flags() & Qt::ItemIsEditable);
      QVERIFY(bench.model()->setData(cell, text, Qt::EditRole));
    };
    const auto shown = [&](const std::string& id, const char* key) { return bench.model()->indexOf(QString::fromStdString(id), RunTable::columnOf(key)).data().toString(); };
    edit(a, "tags", "paper, table 3, paper");
    QTRY_COMPARE(shown(a, "tags"), QString("paper, table 3"));
    edit(a, "notes", "look again");
    QTRY_COMPARE(shown(a, "notes"), QString("look again"));
    edit(a, "name", "renamed");
    QTRY_COMPARE(shown(a, "name"), QString("renamed"));
    const auto again = Workspace::open(bench.place);
    QVERIFY((again->load(a).tags == std::vector<std::string>{"paper", "table 3"}));
    QCOMPARE(again->load(a).notes, std::string("look again"));
    QCOMPARE(again->load(a).name, std::string("renamed"));
    QVERIFY(again->load(b).tags.empty());
    QVERIFY(!(bench.model()->indexOf(QString::fromStdString(a), RunTable::columnOf("ppl")).flags() & Qt::ItemIsEditable));

    // One tag for several, chosen by key.
    bench.select({"renamed", "b"});
    bench.page->table()->setFocus();
    QTest::keyClick(bench.page->table(), Qt::Key_T, Qt::ControlModifier);
    QInputDialog* dialog = nullptr;
    QTRY_VERIFY((dialog = bench.page->findChild<QInputDialog*>()));
    QVERIFY(dialog->comboBoxItems().contains("paper") && dialog->labelText().contains("2 runs"));
    dialog->setTextValue("both");
    dialog->accept();
    QTRY_COMPARE(shown(a, "tags"), QString("paper, table 3, both"));
    QTRY_COMPARE(shown(b, "tags"), QString("both"));
    QVERIFY((Workspace::open(bench.place)->load(b).tags == std::vector<std::string>{"both"}));
    bench.page->filter()->setText("tags~paper");
    QTRY_COMPARE(bench.column("name"), QStringList{"renamed"});
  }

  void a_selection_outlives_news_and_its_actions_are_for_all_of_it() {
    Bench bench;
    bench.add("a", "int4 g64", "rtn", 30);
    bench.add("b", "int3 g64", "rtn", 22);
    bench.add("c", "int3 g64", "gptq", 40);
    QVERIFY(bench.open(3));
    bench.select({"a", "c"});
    QVERIFY(!bench.label("3 runs, 2 chosen").isEmpty());
    const QStringList chosen = bench.page->selectedRuns();
    bench.add("d", "int2 g64", "rtn", 50);
    bench.workbench->followWorkspace(20);
    QTRY_COMPARE(bench.model()->shownRuns(), 4);
    bench.workbench->followWorkspace(0);
    QStringList kept = bench.page->selectedRuns();
    QCOMPARE(QSet<QString>(kept.begin(), kept.end()), QSet<QString>(chosen.begin(), chosen.end()));
    bench.page->table()->sortByColumn(RunTable::columnOf("ppl"), Qt::DescendingOrder);
    QTRY_COMPARE(bench.column("name"), (QStringList{"d", "c", "a", "b"}));
    kept = bench.page->selectedRuns();
    QCOMPARE(QSet<QString>(kept.begin(), kept.end()), QSet<QString>(chosen.begin(), chosen.end()));

    bench.page->table()->setFocus();
    QTest::keyClick(bench.page->table(), Qt::Key_Delete);
    QMessageBox* question = nullptr;
    QTRY_VERIFY((question = bench.page->findChild<QMessageBox*>()));
    QVERIFY(question->text().contains("2 runs") && question->informativeText().contains("a") && question->informativeText().contains("c"));
    for (QAbstractButton* button : question->buttons())
      if (question->buttonRole(button) == QMessageBox::DestructiveRole) button->click();
    QTRY_COMPARE(bench.column("name"), (QStringList{"d", "b"}));
    QTRY_COMPARE(Workspace::open(bench.place)->list().size(), size_t(2));
  }

  void an_eye_and_a_double_click_show_a_run() {
    Bench bench;
    const QString a = QString::fromStdString(bench.add("a", "int4 g64", "rtn", 30));
    QVERIFY(bench.open(1));
    const QModelIndex eye = bench.model()->indexOf(a);
    QVERIFY(!bench.workbench->selection()->find(a)->shown);
    QTest::mouseClick(bench.page->table()->viewport(), Qt::LeftButton, {}, bench.page->table()->visualRect(eye).center());
    QTRY_VERIFY(bench.workbench->selection()->find(a)->shown);
    QTRY_COMPARE(bench.workbench->selection()->currentRun(), a);
    QSignalSpy pages(bench.page.get(), &RunsPage::pageRequested);
    const QPoint name = bench.page->table()->visualRect(bench.model()->indexOf(a, 1)).center();
    QTest::mouseClick(bench.page->table()->viewport(), Qt::LeftButton, {}, name);
    QTest::mouseDClick(bench.page->table()->viewport(), Qt::LeftButton, {}, name);
    QTRY_COMPARE(pages.size(), 1);
    QCOMPARE(pages[0][0].toString(), QString("layers"));
  }

  void the_state_of_the_queue_stands_in_the_table() {
    Bench bench;
    const std::string id = bench.files->create_run(test::fake_recipe("a"));
    QVERIFY(bench.open(1));
    bench.pace->milliseconds = 100;
    const auto status = [&] { return bench.column("status").value(0); };
    QCOMPARE(status(), QString("Waiting"));
    bench.workbench->resume(QString::fromStdString(id));
    QTRY_VERIFY2(status().contains("% done"), qPrintable(status()));
    QTRY_COMPARE(status(), QString("Finished"));
    bench.page->filter()->setText("status=finished");
    QTest::qWait(400);
    QCOMPARE(bench.column("name"), QStringList{"a"});
  }

  void the_table_leaves_as_markdown() {
    Bench bench;
    bench.add("a", "int4 g64", "rtn", 30);
    bench.add("b", "int3 g64", "rtn", 22);
    QVERIFY(bench.open(2));
    bench.page->table()->sortByColumn(RunTable::columnOf("name"), Qt::AscendingOrder);
    QTRY_COMPARE(bench.column("name"), (QStringList{"a", "b"}));
    QMenu* actions = nullptr;
    for (QPushButton* button : bench.page->findChildren<QPushButton*>())
      if (button->text() == "Table") actions = button->menu();
    QVERIFY(actions);
    for (QAction* action : actions->actions())
      if (action->text() == "Copy as Markdown") action->trigger();
    const QStringList lines = QGuiApplication::clipboard()->text().split('\n', Qt::SkipEmptyParts);
    QCOMPARE(lines.size(), 4);
    QVERIFY(lines[0].startsWith("| Name | Status |") && lines[2].startsWith("| a | finished |") && lines[3].contains("| 22.0000 | +2.0000 |"));
  }

  void a_thousand_runs_are_there_at_once() {
    Bench bench;
    const std::string first = bench.add("r", "int4 g64", "rtn", 30);
    const RunReport report = bench.files->load(first);
    for (int i = 1; i < 1000; ++i) {
      const auto folder = bench.place / "runs" / QStringLiteral("20260101-%1-r").arg(i, 6, 10, QLatin1Char('0')).toStdString();
      std::filesystem::create_directories(folder);
      RunReport copy = report;
      copy.name = "r" + std::to_string(i);
      copy.style = i;
      copy.evaluations[0].put({"perplexity", 20.0 + (i * 37 % 1000)});
      write_atomically(folder / "report.json", to_json(copy));
    }
    bench.files->list();  // into the index
    QVERIFY(bench.open(1000, false));
    QElapsedTimer clock;
    qint64 longest = 0;
    const auto until = [&](auto done) {  // the longest time in which the window does not answer
      QElapsedTimer whole;
      whole.start();
      while (!done() && whole.elapsed() < 10000) {
        clock.start();
        QCoreApplication::processEvents();
        longest = std::max(longest, clock.elapsed());
      }
      return done();
    };
    bench.page->table()->sortByColumn(RunTable::columnOf("ppl"), Qt::AscendingOrder);
    QVERIFY(until([&] { return bench.model()->index(0, RunTable::columnOf("ppl")).data().toString() == "21.0000"; }));
    bench.page->filter()->setText("ppl<40");
    QVERIFY(until([&] { return bench.model()->shownRuns() == 20; }));
    bench.page->filter()->clear();
    QVERIFY(until([&] { return bench.model()->shownRuns() == 1000; }));
    bench.page->table()->selectAll();
    QCOMPARE(bench.page->selectedRuns().size(), 1000);
    QVERIFY2(longest < 1000, qPrintable(QString::number(longest)));  // generous: a busy machine is no failure
  }
};

QTEST_MAIN(TestRunsPage)
#include "test_runs_page.moc"
