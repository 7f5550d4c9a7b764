#include <QAction>
#include <QClipboard>
#include <QComboBox>
#include <QDockWidget>
#include <QDropEvent>
#include <QHeaderView>
#include <QLabel>
#include <QLineEdit>
#include <QMenu>
#include <QMessageBox>
#include <QMimeData>
#include <QPlainTextEdit>
#include <QPushButton>
#include <QShortcut>
#include <QSignalSpy>
#include <QTableView>
#include <QTemporaryDir>
#include <QTextBrowser>
#include <QTreeView>
#include <QtTest/QtTest>
#include <fstream>

#include "core/recipe/llmc.h"
#include "core/store/run_index.h"
#include "fake_services.h"
#include "views/MainWindow.h"
#include "views/pages/Dialogs.h"
#include "views/pages/Explorer.h"
#include "views/pages/Inspector.h"
#include "views/pages/LogWindow.h"
#include "views/pages/NoticeBar.h"
#include "views/pages/QueuePanel.h"
#include "views/pages/RecipePage.h"
#include "views/pages/RunsPage.h"
#include "views/pages/WelcomePage.h"
#include "views/plots/ChannelPlot.h"
#include "views/plots/HistogramPlot.h"

using namespace qb;
using namespace qb::views;

class TestMainWindow : public QObject {
  Q_OBJECT

  // A window with everything real but the models and the computing.
  struct Bench {
    QTemporaryDir folder;
    std::shared_ptr<test::Pace> pace = std::make_shared<test::Pace>();
    Settings settings;
    Theme theme;
    std::unique_ptr<Workbench> workbench;
    std::unique_ptr<MainWindow> window;

    Bench() : settings(folder.filePath("settings.ini")) { start(); }
    ~Bench() { stop(); }
    void start(const QStringList& paths = {}) {
      workbench = std::make_unique<Workbench>(test::fake_services(pace));
      window = std::make_unique<MainWindow>(workbench.get(), &settings, &theme);
      settings.setWorkspace(folder.filePath("workspace"));
      window->restoreSession(paths, {});
      workbench->followWorkspace(0);  // but where a test is about it
      window->show();
      workbench->prepare(0);
    }
    void stop() {
      window.reset();
      workbench.reset();
    }
    bool ready() { return QTest::qWaitFor([&] { return workbench->workspace() && workbench->background()->idle() && !workbench->presets().empty(); }); }
    QString file(const QString& name, const std::string& content) {
      std::ofstream(folder.filePath(name).toStdString()) << content;
      return folder.filePath(name);
    }
    QString modelFolder(const QString& name) {
      QDir(folder.path()).mkpath(name);
      file(name + "/config.json", "{}");
      return folder.filePath(name);
    }
    void drop(const QStringList& paths) {
      QMimeData mime;
      QList<QUrl> urls;
      for (const QString& path : paths) urls << QUrl::fromLocalFile(path);
      mime.setUrls(urls);
      QDragEnterEvent enter(QPoint(300, 300), Qt::CopyAction, &mime, Qt::LeftButton, Qt::NoModifier);
      QCoreApplication::sendEvent(window.get(), &enter);
      QVERIFY(enter.isAccepted());
      QDropEvent event(QPointF(300, 300), Qt::CopyAction, &mime, Qt::LeftButton, Qt::NoModifier);
      QCoreApplication::sendEvent(window.get(), &event);
    }
    // Starts a run of a fresh recipe and returns its id once it is in the queue.
    QString startRun(const std::string& name) {
      const auto before = workbench->queue()->jobs().size();
      workbench->document()->open(test::fake_recipe(name), "new");
      workbench->start();
      const bool queued = QTest::qWaitFor([&] { return workbench->queue()->jobs().size() > before; });
      return queued ? workbench->queue()->jobs().last().runId : QString();
    }
    bool finished() { return QTest::qWaitFor([&] { return !workbench->queue()->isBusy() && workbench->background()->idle(); }, 10000); }
    QAction* action(const QString& text) {
      for (QAction* action : window->actions())
        if (QString(action->text()).remove('&') == text) return action;
      return nullptr;
    }
    // A button of the question that is asked, or an action of a notice.
    void press(const QString& text) {
      for (QAbstractButton* button : window->findChildren<QAbstractButton*>())
        if (button->isVisible() && QString(button->text()).remove('&') == text) return button->click();
      QFAIL(qPrintable("there is no button " + text));
    }
    template <class T>
    T* visible() {
      for (T* widget : window->findChildren<T*>())
        if (widget->isVisible()) return widget;
      return nullptr;
    }
  };

 private Q_SLOTS:
  void initTestCase() { QLocale::setDefault(QLocale::c()); }

  void the_first_start_shows_the_welcome_page() {
    Bench bench;
    QVERIFY(bench.ready());
    QCOMPARE(bench.window->page(), QString("welcome"));
    QVERIFY(!bench.workbench->document()->text().isEmpty());  // a recipe to start from
    QVERIFY(!bench.workbench->document()->undoStack()->canUndo());
  }

  void a_dropped_model_folder_is_opened() {
    Bench bench;
    QVERIFY(bench.ready());
    bench.drop({bench.modelFolder("tiny")});
    QTRY_COMPARE(bench.workbench->models()->models().size(), size_t(1));
    QCOMPARE(bench.workbench->document()->recipe().model.string(), bench.folder.filePath("tiny").toStdString());  // the recipe had none
    QVERIFY(bench.settings.recent().contains(bench.folder.filePath("tiny")));
  }

  void the_layout_can_be_reset() {
    Bench bench;
    QVERIFY(bench.ready());
    bench.window->showPage("layers");
    const QList<QDockWidget*> docks = bench.window->findChildren<QDockWidget*>();
    QCOMPARE(docks.size(), 3);
    docks[0]->setFloating(true);
    docks[1]->hide();
    bench.window->addDockWidget(Qt::TopDockWidgetArea, docks[2]);
    bench.action("Reset layout")->trigger();
    for (QDockWidget* dock : docks) QVERIFY(!dock->isFloating() && dock->isVisible());
    for (const auto& [name, area] : {std::pair("explorer", Qt::LeftDockWidgetArea), {"inspector", Qt::RightDockWidgetArea}, {"queue", Qt::BottomDockWidgetArea}})
      QCOMPARE(bench.window->dockWidgetArea(bench.window->findChild<QDockWidget*>(name)), area);
  }

  void one_model_at_a_time() {
    Bench bench;
    QVERIFY(bench.ready());
    Selection* selection = bench.workbench->selection();
    auto* explorer = bench.window->findChild<Explorer*>();
    const auto runOn = [&](const QString& model, const std::string& name) {
      const auto before = bench.workbench->queue()->jobs().size();
      Recipe recipe = test::fake_recipe(name);
      recipe.model = bench.folder.filePath(model).toStdString();
      bench.workbench->document()->open(recipe, "new");
      bench.workbench->start();
      return QTest::qWaitFor([&] { return bench.workbench->queue()->jobs().size() > before; }) && bench.finished() ? bench.workbench->queue()->jobs().last().runId : QString();
    };
    bench.drop({bench.modelFolder("first")});
    QTRY_COMPARE(bench.workbench->models()->models().size(), size_t(1));
    const QString a1 = runOn("first", "a one"), a2 = runOn("first", "a two");
    bench.drop({bench.modelFolder("second")});
    QTRY_COMPARE(bench.workbench->models()->models().size(), size_t(2));
    // Opening a model makes it the one that is looked at, in the tree, the list, the title and the next recipe.
    QCOMPARE(selection->currentModel(), QString("hash of second"));
    QCOMPARE(explorer->modelView()->currentIndex().data().toString(), QString("second"));
    QCOMPARE(explorer->runView()->model()->rowCount(), 0);
    QVERIFY2(bench.window->windowTitle().contains("second") && bench.window->windowTitle().contains("workspace"), qPrintable(bench.window->windowTitle()));
    bench.action("New recipe")->trigger();
    QCOMPARE(bench.workbench->document()->recipe().model.string(), bench.folder.filePath("second").toStdString());
    const QString b = runOn("second", "b");
    QCOMPARE(explorer->runView()->model()->rowCount(), 1);
    QCOMPARE(explorer->modelChoice()->count(), 2);
    QCOMPARE(explorer->modelChoice()->currentText(), QString("second (1)"));
    // The list's own choice of a model.
    explorer->modelChoice()->setFocus();
    QTest::keyClick(explorer->modelChoice(), Qt::Key_Up);
    QCOMPARE(selection->currentModel(), QString("hash of first"));
    QCOMPARE(explorer->runView()->model()->rowCount(), 2);
    QVERIFY(bench.window->windowTitle().contains("first"));
    selection->setBaseline(a1);
    QCOMPARE(bench.workbench->bestRun().isEmpty(), false);
    QVERIFY(bench.workbench->bestRun() != b);
    // A linear of the other model is looked at in that model's runs.
    QTreeView* tree = explorer->modelView();
    const QAbstractItemModel* rows = tree->model();
    QModelIndex second;
    for (int row = 0; row < rows->rowCount(); ++row)
      if (rows->index(row, 0).data() == QString("second")) second = rows->index(row, 0);
    QVERIFY(second.isValid());
    tree->expand(second);
    const QModelIndex block = rows->index(1, 0, second);
    tree->expand(block);
    const QModelIndex linear = rows->index(2, 0, block);
    tree->scrollTo(linear);
    QTest::mouseClick(tree->viewport(), Qt::LeftButton, {}, tree->visualRect(linear).center());
    QCOMPARE(selection->currentModel(), QString("hash of second"));
    QCOMPARE(selection->currentLinear(), (LinearKey{1, "mlp.up_proj"}));
    QVERIFY(selection->baseline().isEmpty());
    QCOMPARE(selection->shownRuns().size(), 1);
    // The key of the list asks before it deletes.
    explorer->runView()->selectRow(0);
    explorer->runView()->setFocus();
    QTest::keyClick(explorer->runView(), Qt::Key_Delete);
    auto* question = bench.window->findChild<QMessageBox*>();
    QVERIFY(question && question->informativeText() == "b");
    for (QAbstractButton* button : question->buttons())
      if (button->text() == "Delete") button->click();
    QTRY_VERIFY(!selection->find(b));
    QCOMPARE(selection->currentModel(), QString("hash of second"));  // it is open
    // Closed, nothing is left of it.
    bench.workbench->closeModel(bench.folder.filePath("second"));
    QCOMPARE(selection->currentModel(), QString("hash of first"));
    QCOMPARE(selection->baseline(), a1);
    QVERIFY(selection->find(a2));
  }

  void a_part_of_a_model_opens_the_whole() {
    Bench bench;
    QVERIFY(bench.ready());
    const QString folder = bench.modelFolder("tiny");
    for (const char* part : {"model-00001-of-00002.safetensors", "model.safetensors.index.json", "pytorch_model.bin"}) bench.file(QString("tiny/") + part, "x");
    for (const char* part : {"config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "pytorch_model.bin"}) {
      bench.drop({folder + "/" + part});
      QTRY_COMPARE(bench.workbench->models()->models().size(), size_t(1));
      QCOMPARE(bench.workbench->models()->models().front()->path.string(), folder.toStdString());
      bench.workbench->closeModel(folder);
    }
    const QString blob = bench.file("sha256-0123abcd", "GGUF and more");  // as a store of blobs calls it
    bench.drop({blob});
    QTRY_COMPARE(bench.workbench->models()->models().size(), size_t(1));
    QCOMPARE(bench.workbench->models()->models().front()->path.string(), blob.toStdString());
  }

  void a_recent_path_opens_again_from_the_welcome_page_and_the_menu() {
    Bench bench;
    QVERIFY(bench.ready());
    const QString path = bench.modelFolder("tiny");
    bench.drop({path});
    QTRY_COMPARE(bench.workbench->models()->models().size(), size_t(1));
    bench.workbench->models()->removeAt(0);
    Q_EMIT bench.window->findChild<WelcomePage*>()->recentRequested(path);
    QTRY_COMPARE(bench.workbench->models()->models().size(), size_t(1));
    bench.workbench->models()->removeAt(0);
    const auto actions = bench.window->findChildren<QAction*>();
    const auto entry = std::find_if(actions.begin(), actions.end(), [&](const QAction* action) { return action->text() == path; });
    QVERIFY(entry != actions.end());
    (*entry)->trigger();
    QTRY_COMPARE(bench.workbench->models()->models().size(), size_t(1));
  }

  void a_dropped_gguf_file_is_opened() {
    Bench bench;
    QVERIFY(bench.ready());
    bench.drop({bench.file("tiny.GGUF", "GGUF")});
    QTRY_COMPARE(bench.workbench->models()->models().size(), size_t(1));
  }

  void a_dropped_recipe_is_shown_in_the_form() {
    Bench bench;
    QVERIFY(bench.ready());
    bench.drop({bench.file("mine.yaml", "# mine\n" + to_yaml(test::fake_recipe("mine")))});
    QTRY_COMPARE(bench.window->page(), QString("recipe"));
    QCOMPARE(bench.workbench->document()->title(), QString("mine"));
    QVERIFY(bench.workbench->document()->text().startsWith("# mine"));
    QCOMPARE(bench.workbench->document()->path(), bench.folder.filePath("mine.yaml"));
  }

  void a_dropped_llmc_recipe_is_translated_and_the_notes_are_shown() {
    Bench bench;
    QVERIFY(bench.ready());
    bench.drop({bench.file("rtn.yml",
                           "base:\n  seed: 7\nmodel:\n  type: Llama\n  path: /models/llama\n  tokenizer_mode: slow\n  torch_dtype: auto\n"
                           "quant:\n  method: RTN\n  weight:\n    bit: 4\n    symmetric: False\n    granularity: per_group\n    group_size: 128\n"
                           "save:\n  save_trans: False\n  save_path: /tmp/x\n")});
    QTRY_COMPARE(bench.window->page(), QString("recipe"));
    const Recipe& recipe = bench.workbench->document()->recipe();
    QCOMPARE(recipe.seed, uint64_t(7));
    QVERIFY(recipe.scheme.weights && recipe.scheme.weights->group_size == 128 && !recipe.scheme.weights->symmetric);
    QVERIFY(bench.window->recipePage()->notices()->isVisible());
    QVERIFY(bench.workbench->document()->path().isEmpty());  // saving must not overwrite LLMC's file
  }

  void a_dropped_workspace_is_opened_and_its_runs_listed() {
    Bench bench;
    QVERIFY(bench.ready());
    const auto other = Workspace::open(bench.folder.filePath("other").toStdString());
    other->create_run(test::fake_recipe("from elsewhere"));
    bench.drop({bench.folder.filePath("other")});
    QTRY_COMPARE(bench.workbench->runList()->rowCount(), 1);
    QCOMPARE(bench.workbench->runList()->index(0, RunList::Name).data().toString(), QString("from elsewhere"));
  }

  void what_cannot_be_opened_is_told_in_the_window() {
    Bench bench;
    QVERIFY(bench.ready());
    bench.drop({bench.file("picture.png", "x")});
    QTRY_VERIFY(bench.window->notices()->isVisible());
    QVERIFY(bench.window->notices()->text().contains("picture.png"));
    bench.window->notices()->clear();
    bench.drop({bench.modelFolder("broken")});
    QTRY_VERIFY(bench.window->notices()->isVisible());
    QVERIFY(bench.window->notices()->text().contains("hidden_size"));
    QVERIFY(bench.workbench->models()->models().empty());
  }

  void a_started_run_streams_its_blocks_into_the_selection() {
    Bench bench;
    QVERIFY(bench.ready());
    bench.pace->milliseconds = 30;
    const QString id = bench.startRun("first");
    QVERIFY(!id.isEmpty());
    QVERIFY(bench.workbench->selection()->find(id)->shown);
    QCOMPARE(bench.workbench->selection()->currentRun(), id);
    QTRY_VERIFY(bench.workbench->selection()->find(id)->report->blocks.size() > 0);
    QVERIFY(bench.workbench->selection()->find(id)->report->blocks.size() < 4);  // drawn while the next one runs
    QVERIFY(bench.finished());
    QCOMPARE(bench.workbench->selection()->find(id)->report->status, RunStatus::finished);
    QCOMPARE(bench.workbench->selection()->find(id)->report->blocks.size(), size_t(4));
    QCOMPARE(bench.workbench->runList()->index(0, RunList::Status).data().toString(), QString("Finished"));
  }

  void a_recipe_that_preflight_refuses_starts_no_run_and_says_why() {
    Bench bench;
    QVERIFY(bench.ready());
    bench.workbench->document()->open(test::fake_recipe("refused"), "new");
    bench.workbench->start();
    QTRY_VERIFY(bench.window->recipePage()->notices()->isVisible());
    QVERIFY(bench.window->recipePage()->notices()->text().contains("group size 7"));
    QCOMPARE(bench.workbench->queue()->jobs().size(), 0);
    QCOMPARE(bench.workbench->workspace()->list().size(), size_t(0));
  }

  void two_runs_of_one_recipe_have_two_names() {
    Bench bench;
    QVERIFY(bench.ready());
    bench.startRun("same");
    const QString second = bench.startRun("same");
    QCOMPARE(QString::fromStdString(bench.workbench->selection()->find(second)->report->name), QString("same #2"));
    QVERIFY(bench.finished());
  }

  void comparing_shows_the_chosen_runs_and_no_others() {
    Bench bench;
    QVERIFY(bench.ready());
    QStringList ids;
    for (const char* name : {"a", "b", "c"}) ids << bench.startRun(name);
    QVERIFY(bench.finished());
    QTableView* runs = bench.window->findChild<Explorer*>()->runView();
    runs->clearSelection();
    for (int row = 0; row < 2; ++row) runs->selectionModel()->select(runs->model()->index(row, 0), QItemSelectionModel::Select | QItemSelectionModel::Rows);
    bench.action("Compare selected runs")->trigger();
    QTRY_COMPARE(bench.workbench->selection()->shownRuns().size(), 2);
    QVERIFY(!bench.workbench->selection()->find(ids[0])->shown);  // newest first: c and b
    QCOMPARE(bench.window->page(), QString("layers"));
  }

  void the_best_recipe_is_the_one_with_the_lowest_perplexity() {
    Bench bench;
    QVERIFY(bench.ready());
    QCOMPARE(bench.workbench->bestRun(), QString());
    const QString first = bench.startRun("good"), second = bench.startRun("bad");
    QVERIFY(bench.finished());
    auto worse = std::make_shared<RunReport>(*bench.workbench->selection()->find(second)->report);
    for (EvaluationResult& result : worse->evaluations) result.put({"perplexity", result.value("perplexity") + 10, result.error("perplexity")});
    bench.workbench->selection()->putRun(worse);
    QCOMPARE(bench.workbench->bestRun(), first);
    bench.workbench->selection()->setShown(first, false);  // hidden ones do not count
    QCOMPARE(bench.workbench->bestRun(), second);
    bench.workbench->selection()->setShown(first, true);
    const QString path = bench.folder.filePath("best.yaml");
    bench.workbench->saveBestRecipe(path);
    QTRY_VERIFY(QFile::exists(path));
    QCOMPARE(load_recipe(path.toStdString()).name, std::string("good"));
    QTRY_VERIFY(bench.window->notices()->text().contains("best.yaml"));
  }

  void the_recipe_is_saved_as_ours_and_as_llmcs() {
    Bench bench;
    QVERIFY(bench.ready());
    bench.workbench->document()->open(test::fake_recipe("mine"), "new");
    QVERIFY(bench.workbench->document()->isModified());
    const QString path = bench.folder.filePath("mine.yaml"), llmc = bench.folder.filePath("llmc.yml");
    bench.workbench->saveRecipe(path);
    QTRY_VERIFY(!bench.workbench->document()->isModified());
    QVERIFY(load_recipe(path.toStdString()) == bench.workbench->document()->recipe());
    bench.workbench->saveLlmc(llmc);
    QTRY_VERIFY(QFile::exists(llmc));
    QFile file(llmc);
    QVERIFY(file.open(QIODevice::ReadOnly));
    const Recipe back = from_llmc(file.readAll().toStdString(), "x").recipe;  // what LLMC can say of it
    QCOMPARE(back.scheme.weights->type.bits, 4);
    QCOMPARE(back.scheme.weights->group_size, int64_t(64));
    QCOMPARE(back.model, bench.workbench->document()->recipe().model);
    QTRY_VERIFY(bench.window->recipePage()->notices()->text().contains("llmc.yml"));
  }

  void the_command_line_does_the_same_in_a_terminal() {
    Bench bench;
    QVERIFY(bench.ready());
    Recipe recipe = test::fake_recipe("It's 4 bits");
    bench.workbench->document()->open(recipe, "new");
    bench.action("Copy as command line")->trigger();
    const QString command = QGuiApplication::clipboard()->text();
    // A shell writes the very recipe, and runs the program on it.
    bench.file("qbench", "#!/bin/sh\necho \"$@\" > arguments\n");
    QFile::setPermissions(bench.folder.filePath("qbench"), QFile::ReadOwner | QFile::ExeOwner);
    QProcess shell;
    shell.setWorkingDirectory(bench.folder.path());
    QProcessEnvironment environment = QProcessEnvironment::systemEnvironment();
    environment.insert("PATH", bench.folder.path() + ":" + environment.value("PATH"));
    shell.setProcessEnvironment(environment);
    shell.start("sh", {"-c", command});
    QVERIFY(shell.waitForFinished());
    QCOMPARE(shell.exitCode(), 0);
    QFile arguments(bench.folder.filePath("arguments"));
    QVERIFY(arguments.open(QIODevice::ReadOnly));
    const QStringList words = QString::fromUtf8(arguments.readAll()).split(' ');
    QCOMPARE(words[0], QString("run"));
    QVERIFY(load_recipe(bench.folder.filePath(words[1]).toStdString()) == recipe);
    QVERIFY(words.contains(bench.workbench->workspacePath()));
  }

  void closing_while_a_run_goes_on_asks_and_keeps_the_run_resumable() {
    Bench bench;
    QVERIFY(bench.ready());
    bench.pace->milliseconds = 200;
    const QString id = bench.startRun("long");
    QTRY_VERIFY(bench.pace->running == 1);
    QVERIFY(!bench.window->close());
    QVERIFY(bench.window->isVisible());
    auto* question = bench.visible<QMessageBox>();
    QVERIFY(question);
    QCOMPARE(question->defaultButton()->text(), QString("Keep open"));
    question->defaultButton()->click();
    QCOMPARE(bench.pace->running.load(), 1);
    QTest::qWait(10);
    QVERIFY(!bench.window->close());
    bench.press("Stop after their block");
    QTRY_VERIFY(!bench.window->isVisible());
    QCOMPARE(bench.pace->running.load(), 0);
    const auto folder = bench.workbench->runFolder(id);
    QCOMPARE(bench.workbench->workspace()->load(id.toStdString()).status, RunStatus::interrupted);
    QVERIFY(!bench.workbench->workspace()->load(id.toStdString()).blocks.empty());
    QCOMPARE(load_request(folder)->wish, Wish::run);  // it waits for its turn in the workspace
    bench.stop();
    bench.pace->milliseconds = 1;
    bench.start();
    QVERIFY(bench.ready());
    QTRY_VERIFY(bench.window->notices()->text().contains("A run waits in this workspace's queue"));
    QCOMPARE(bench.workbench->queue()->jobOfRun(id)->state, JobState::Queued);
    QCOMPARE(bench.pace->running.load(), 0);  // looking at a workspace starts nothing
    bench.press("Start");
    QTRY_COMPARE(bench.workbench->queue()->jobOfRun(id)->state, JobState::Finished);
  }

  void runs_are_left_to_go_on_when_the_window_closes() {
    Bench bench;
    QVERIFY(bench.ready());
    bench.pace->milliseconds = 100;
    const QString first = bench.startRun("first"), second = bench.startRun("second");
    QTRY_VERIFY(bench.pace->running == 1);
    QVERIFY(!bench.window->close());
    QVERIFY(bench.visible<QMessageBox>()->informativeText().contains("The one that waits is carried out afterwards."));
    bench.press("Let them go on");
    QTRY_VERIFY(!bench.window->isVisible());
    QCOMPARE(bench.pace->queues.load(), 1);
    QCOMPARE(load_request(bench.workbench->runFolder(second))->wish, Wish::run);
    bench.stop();
    bench.start();
    QVERIFY(bench.ready());
    QTRY_VERIFY(bench.workbench->queue()->jobOfRun(second));
    QVERIFY(!bench.workbench->queue()->jobOfRun(second)->ours);
  }

  void waiting_runs_keep_their_order_and_their_holds_from_start_to_start() {
    Bench bench;
    QVERIFY(bench.ready());
    bench.workbench->queue()->setReady(false);
    const QString a = bench.startRun("a"), b = bench.startRun("b"), c = bench.startRun("c");
    auto* queue = bench.workbench->queue();
    queue->move(queue->jobOfRun(c)->id, -2);
    queue->pause(queue->jobOfRun(a)->id);
    bench.stop();
    bench.start();
    QVERIFY(bench.ready());
    QTRY_COMPARE(bench.workbench->queue()->jobs().size(), 3);
    QStringList order;
    for (const Job& job : bench.workbench->queue()->jobs()) order << job.runId;
    QCOMPARE(order, (QStringList{c, a, b}));
    QCOMPARE(bench.workbench->queue()->jobOfRun(a)->state, JobState::Held);
    bench.workbench->queue()->cancel(bench.workbench->queue()->jobOfRun(b)->id);
    bench.workbench->queue()->startWaiting();
    QTRY_COMPARE(bench.workbench->queue()->jobOfRun(c)->state, JobState::Finished);
    QCOMPARE(bench.workbench->queue()->jobOfRun(a)->state, JobState::Held);
    bench.stop();
    QVERIFY(!load_request(std::filesystem::path(bench.folder.filePath("workspace").toStdString()) / "runs" / b.toStdString()));
  }

  void the_session_comes_back() {
    Bench bench;
    QVERIFY(bench.ready());
    bench.drop({bench.modelFolder("tiny")});
    QTRY_COMPARE(bench.workbench->models()->models().size(), size_t(1));
    const QString shown = bench.startRun("shown"), hidden = bench.startRun("hidden");
    QVERIFY(bench.finished());
    bench.workbench->show(hidden, false);
    bench.workbench->makeCurrent(shown);
    bench.workbench->document()->open(test::fake_recipe("draft"), "new");
    bench.window->showPage("accuracy");
    bench.window->findChild<QDockWidget*>("queue")->hide();
    bench.window->resize(1111, 777);
    QVERIFY(bench.window->close());
    bench.stop();

    bench.start();
    QVERIFY(bench.ready());
    QTRY_COMPARE(bench.workbench->selection()->shownRuns().size(), 1);
    QCOMPARE(bench.workbench->selection()->shownRuns().front().id, shown);
    QCOMPARE(bench.workbench->selection()->shownRuns().front().report->blocks.size(), size_t(4));  // read again, with its blocks
    QTRY_COMPARE(bench.workbench->selection()->currentRun(), shown);
    QCOMPARE(bench.workbench->runList()->rowCount(), 2);
    QCOMPARE(bench.workbench->models()->models().size(), size_t(1));
    QCOMPARE(bench.workbench->document()->title(), QString("draft"));
    QCOMPARE(bench.window->page(), QString("accuracy"));
    QCOMPARE(bench.window->size(), QSize(1111, 777));
    QVERIFY(bench.window->findChild<QDockWidget*>("queue")->isHidden());
  }

  void a_run_left_by_a_program_that_ended_is_resumed() {
    Bench bench;
    QVERIFY(bench.ready());
    bench.pace->milliseconds = 300;
    const QString id = bench.startRun("broken off");
    QTRY_VERIFY(bench.workbench->selection()->find(id)->report->blocks.size() >= 2);
    bench.workbench->queue()->cancelAll();
    bench.pace->milliseconds = 1;
    QVERIFY(bench.finished());
    bench.stop();
    bench.start();
    QVERIFY(bench.ready());
    bench.workbench->resume(id);
    QTRY_VERIFY(bench.workbench->queue()->jobOfRun(id));
    QVERIFY(bench.finished());
    QCOMPARE(bench.workbench->selection()->find(id)->report->status, RunStatus::finished);
    QCOMPARE(bench.workbench->selection()->find(id)->report->blocks.size(), size_t(4));
  }

  void a_renamed_and_a_deleted_run_are_so_on_disk() {
    Bench bench;
    QVERIFY(bench.ready());
    const QString id = bench.startRun("old");
    QVERIFY(bench.finished());
    bench.workbench->rename(id, "new name");
    QTRY_COMPARE(QString::fromStdString(bench.workbench->selection()->find(id)->report->name), QString("new name"));
    QCOMPARE(bench.workbench->workspace()->load(id.toStdString()).name, std::string("new name"));
    bench.workbench->remove(id);
    QTRY_COMPARE(bench.workbench->selection()->runs().size(), 0);
    QVERIFY(bench.workbench->workspace()->list().empty());
  }

  void the_demo_runs_two_recipes_and_lands_on_layers() {
    Bench bench;
    QVERIFY(bench.ready());
    bench.window->tryDemo();
    QTRY_COMPARE(bench.window->page(), QString("layers"));
    QCOMPARE(bench.workbench->selection()->shownRuns().size(), 2);
    QVERIFY(bench.finished());
    for (const RunEntry& run : bench.workbench->selection()->runs()) QCOMPARE(run.report->status, RunStatus::finished);
    QVERIFY(bench.workbench->document()->path().isEmpty());  // saving must not overwrite the program's own file
  }

  void a_linear_chosen_in_the_tree_is_the_current_one_everywhere() {
    Bench bench;
    QVERIFY(bench.ready());
    bench.drop({bench.modelFolder("tiny")});
    QTRY_COMPARE(bench.workbench->models()->models().size(), size_t(1));
    QTreeView* tree = bench.window->findChild<Explorer*>()->modelView();
    const QModelIndex model = tree->model()->index(0, 0), block = tree->model()->index(2, 0, model);
    tree->setCurrentIndex(tree->model()->index(1, 0, block));
    QCOMPARE(bench.workbench->selection()->currentLinear(), (LinearKey{2, "self_attn.o_proj"}));
    bench.workbench->selection()->setCurrentLinear({3, "mlp.down_proj"});  // chosen in a plot
    QCOMPARE(tree->currentIndex().data().toString(), QString("mlp.down_proj"));
  }

  // Opens the model "whole" and clicks the row of its tree that stands below these.
  static void clickRow(Bench& bench, const QStringList& path) {
    QTreeView* tree = bench.window->findChild<Explorer*>()->modelView();
    QModelIndex at;
    for (const QString& name : path) {
      QModelIndex next;
      for (int row = 0; row < tree->model()->rowCount(at); ++row)
        if (tree->model()->index(row, 0, at).data().toString() == name) next = tree->model()->index(row, 0, at);
      QVERIFY2(next.isValid(), qPrintable(name));
      tree->expand(at);
      at = next;
    }
    tree->scrollTo(at);
    QTest::mouseClick(tree->viewport(), Qt::LeftButton, {}, tree->visualRect(at).center());
  }

  void embeddings_norms_and_head_stand_in_the_tree_and_are_found() {
    Bench bench;
    QVERIFY(bench.ready());
    bench.drop({bench.modelFolder("whole")});
    QTRY_COMPARE(bench.workbench->models()->models().size(), size_t(1));
    QTreeView* tree = bench.window->findChild<Explorer*>()->modelView();
    const QModelIndex model = tree->model()->index(0, 0);
    QStringList rows;
    for (int row = 0; row < tree->model()->rowCount(model); ++row) rows << tree->model()->index(row, 0, model).data().toString();
    QCOMPARE(rows, QStringList({"embed_tokens", "Block 0", "Block 1", "Block 2", "Block 3", "norm", "lm_head"}));
    const QModelIndex head = tree->model()->index(6, 0, model);
    QCOMPARE(head.siblingAtColumn(ModelTree::Type).data().toString(), QString("tied"));
    QVERIFY(head.data(Qt::ToolTipRole).toString().contains("tied to the embedding"));
    const QModelIndex block = tree->model()->index(1, 0, model);
    QCOMPARE(tree->model()->index(4, 0, block).data().toString(), QString("input_layernorm"));
    // By what they are, and by name.
    QLineEdit* search = nullptr;
    for (QLineEdit* edit : bench.window->findChild<Explorer*>()->findChildren<QLineEdit*>())
      if (edit->accessibleName() == "Search in the open models") search = edit;
    QVERIFY(search);
    const auto found = [&](const QString& text) {
      search->setText(text);
      QTest::qWait(200);
      QStringList names;
      const QAbstractItemModel* shown = tree->model();
      const QModelIndex top = shown->index(0, 0);
      for (int row = 0; row < shown->rowCount(top); ++row) {
        const QModelIndex index = shown->index(row, 0, top);
        if (shown->rowCount(index) == 0) names << index.data().toString();
        for (int inner = 0; inner < shown->rowCount(index); ++inner) names << shown->index(inner, 0, index).data().toString();
      }
      return names;
    };
    QCOMPARE(found("embedding"), QStringList({"embed_tokens"}));
    QCOMPARE(found("head"), QStringList({"lm_head"}));
    QCOMPARE(found("layers.2.mlp.down"), QStringList({"mlp.down_proj"}));
    QCOMPARE(found("norm").size(), 5);
    QCOMPARE(found("qkv").size(), 4);
  }

  void a_tensor_is_looked_at_before_any_run() {
    Bench bench;
    QVERIFY(bench.ready());
    bench.drop({bench.modelFolder("whole")});
    QTRY_COMPARE(bench.workbench->models()->models().size(), size_t(1));
    auto* inspector = bench.window->findChild<Inspector*>();
    QVERIFY(!inspector->isVisible());  // on the page of recipes
    QCOMPARE(bench.pace->tensors.load(), 0);
    clickRow(bench, {"whole", "Block 1", "mlp.down_proj"});
    QCOMPARE(bench.workbench->selection()->currentLinear(), (LinearKey{1, "mlp.down_proj"}));
    QTRY_VERIFY(inspector->isVisible());
    const auto shown = [&](const QString& caption) -> Plot* {
      for (Plot* plot : inspector->findChildren<Plot*>())
        if (plot->isVisible() && plot->title() == caption) return plot;
      return nullptr;
    };
    QTRY_VERIFY(shown("Values as stored"));
    auto* values = static_cast<HistogramPlot*>(shown("Values as stored"));
    QCOMPARE(values->series().size(), 1);
    QCOMPARE(values->series().front().histogram.counts[2], int64_t(9));
    QCOMPARE(values->conditions(), QString("all 2048 values, BF16"));
    QVERIFY(!values->xAxis->label().isEmpty() && !values->yAxis->label().isEmpty());
    auto* input = static_cast<ChannelPlot*>(shown("Size by input channel"));
    QVERIFY(input && shown("Size by output channel"));
    QCOMPARE(input->sizes().channels, int64_t(64));
    QCOMPARE(input->xAxis->label(), QString("Input channel"));
    QCOMPARE(input->table().rows[5][3].toDouble(), 9.0);
    const auto fifth = [&] { return input->describe({input->xAxis->coordToPixel(5), double(input->axisRect()->center().y())}); };
    QTRY_VERIFY2(fifth().contains("Input channel 5 of 64") && fifth().contains("9 times the median"), qPrintable(fifth()));
    QVERIFY(!shown("Weights before and after"));  // no run
    // It makes room again for the recipe that one goes on with.
    bench.window->recipePage()->setFocus();
    for (QLineEdit* edit : bench.window->recipePage()->findChildren<QLineEdit*>())
      if (edit->isVisible()) {
        edit->setFocus();
        break;
      }
    QTRY_VERIFY(!inspector->isVisible());
    // A norm has one value a channel; a tied head is the embedding, by token.
    clickRow(bench, {"whole", "norm"});
    QVERIFY(!bench.workbench->selection()->currentLinear().isValid());
    QTRY_VERIFY(shown("Size by channel"));
    QVERIFY(!shown("Size by row") && !shown("Size by output channel"));
    clickRow(bench, {"whole", "lm_head"});
    QTRY_VERIFY(shown("Size by token"));
    QVERIFY(shown("Size by hidden channel"));
    bool tied = false;
    for (QLabel* label : inspector->findChildren<QLabel*>()) tied = tied || (label->isVisible() && label->text().contains("tied to the embedding"));
    QVERIFY(tied);
    QCOMPARE(bench.pace->tensors.load(), 3);
    clickRow(bench, {"whole", "norm"});  // known already
    QTRY_VERIFY(shown("Size by channel"));
    QCOMPARE(bench.pace->tensors.load(), 3);
  }

  void a_stale_tensor_is_dropped_and_a_damaged_file_is_told_in_place() {
    Bench bench;
    QVERIFY(bench.ready());
    bench.drop({bench.modelFolder("whole")});
    QTRY_COMPARE(bench.workbench->models()->models().size(), size_t(1));
    auto* inspector = bench.window->findChild<Inspector*>();
    auto* facts = inspector->findChild<QTableView*>();
    for (QTableView* table : inspector->findChildren<QTableView*>())
      if (table->accessibleName() == "Facts of the tensor") facts = table;
    const auto told = [&](const QString& name) {
      for (int row = 0; row < facts->model()->rowCount(); ++row)
        if (facts->model()->index(row, 0).data() == name) return facts->isVisible() ? facts->model()->index(row, 1).data().toString() : QString();
      return QString();
    };
    bench.pace->tensors_wait = true;
    clickRow(bench, {"whole", "Block 1", "mlp.down_proj"});
    QTRY_COMPARE(bench.pace->tensors.load(), 1);
    clickRow(bench, {"whole", "Block 0", "self_attn.q_proj"});
    QTRY_COMPARE(bench.pace->tensors.load(), 2);
    bench.pace->tensors_wait = false;
    QTRY_COMPARE(told("Largest |w|"), QString::number(QString("model.layers.0.self_attn.q_proj.weight").size()));
    QTest::qWait(50);
    QCOMPARE(told("Largest |w|"), QString::number(QString("model.layers.0.self_attn.q_proj.weight").size()));
    bench.pace->tensors_fail = true;
    clickRow(bench, {"whole", "Block 2", "mlp.up_proj"});
    const auto label = [&](const QString& part) {
      for (QLabel* each : inspector->findChildren<QLabel*>())
        if (each->isVisible() && each->text().contains(part)) return true;
      return false;
    };
    QTRY_VERIFY(label("model.safetensors: is truncated"));
    QVERIFY(told("Largest |w|").isEmpty());
    QVERIFY(!bench.window->notices()->isVisible());  // once, in its place
    bench.pace->tensors_fail = false;
    clickRow(bench, {"whole", "Block 2", "mlp.down_proj"});
    QTRY_VERIFY(!told("Largest |w|").isEmpty());
    QVERIFY(!label("truncated"));
  }

  // What the list of runs shows of one.
  static QString cell(Bench& bench, const QString& run, int column) {
    const QAbstractItemModel* rows = bench.window->findChild<Explorer*>()->runView()->model();
    for (int row = 0; row < rows->rowCount(); ++row)
      if (rows->index(row, 0).data(RunList::IdRole).toString() == run) return rows->index(row, column).data().toString();
    return {};
  }

  void a_run_of_another_process_is_followed() {
    Bench bench;
    QVERIFY(bench.ready());
    bench.drop({bench.modelFolder("tiny")});
    QTRY_COMPARE(bench.workbench->models()->models().size(), size_t(1));
    const auto other = Workspace::open(bench.folder.filePath("workspace").toStdString());
    bench.workbench->followWorkspace(20);
    Recipe recipe = test::fake_recipe("theirs");
    recipe.model = bench.folder.filePath("tiny").toStdString();
    const std::string theirs = other->create_run(recipe);
    const QString id = QString::fromStdString(theirs);
    QTRY_COMPARE(cell(bench, id, RunList::Name), QString("theirs"));
    QCOMPARE(cell(bench, id, RunList::Status), QString("Waiting"));
    test::Pace pace;
    pace.milliseconds = 300;
    std::thread worker([&] { test::fake_run(pace, *other, theirs, {}, {}, {}); });
    QTRY_VERIFY(cell(bench, id, RunList::Status).startsWith("Elsewhere "));
    const auto blocks = [&] { return bench.workbench->selection()->find(id)->report->blocks.size(); };
    QTRY_VERIFY(blocks() > 0);
    const bool streamed = blocks() < 4;
    bench.workbench->show(id, true);
    const bool shown = bench.workbench->selection()->shownRuns().size() == 1;
    const QString status = cell(bench, id, RunList::Status), obstacle = bench.workbench->exportObstacle(id), owner = bench.workbench->selection()->find(id)->owner;
    const bool resumable = bench.workbench->canResume(id);
    bench.workbench->remove(id);
    const QString refused = bench.window->notices()->text();
    worker.join();
    QVERIFY(streamed && shown);  // its blocks come one by one, and are drawn
    QVERIFY2(QRegularExpression("^Elsewhere [1-4]/4$").match(status).hasMatch(), qPrintable(status));
    QVERIFY(owner.contains(QString("process %1 on ").arg(QCoreApplication::applicationPid())));
    QVERIFY(!resumable && obstacle.contains(owner) && refused.contains(owner));
    QTRY_COMPARE(cell(bench, id, RunList::Status), QString("Finished"));
    QCOMPARE(blocks(), size_t(4));
    QVERIFY(cell(bench, id, RunList::Perplexity) != "–");
    QVERIFY(bench.workbench->exportObstacle(id).isEmpty());
    other->rename(theirs, "another name");
    QTRY_COMPARE(cell(bench, id, RunList::Name), QString("another name"));
    // One whose process was killed says in its file that it runs.
    RunReport killed = other->load(theirs);
    killed.status = RunStatus::running;
    other->save(killed);
    QTRY_COMPARE(cell(bench, id, RunList::Status), QString("Interrupted"));
    QVERIFY(bench.workbench->canResume(id));
    other->remove(theirs);
    QTRY_VERIFY(!bench.workbench->selection()->find(id));
  }

  void two_windows_on_one_workspace_follow_each_other() {
    Bench one, two;
    QVERIFY(one.ready() && two.ready());
    two.workbench->openWorkspace(one.workbench->workspacePath());
    QTRY_COMPARE(two.workbench->workspacePath(), one.workbench->workspacePath());
    for (Bench* bench : {&one, &two}) {
      bench->drop({one.modelFolder("tiny")});
      QTRY_COMPARE(bench->workbench->models()->models().size(), size_t(1));
      bench->workbench->selection()->setCurrentModel("hash of tiny");
      bench->workbench->followWorkspace(20);
    }
    one.pace->milliseconds = 200;
    const QString a = one.startRun("of one");
    QTRY_VERIFY(cell(two, a, RunList::Status).startsWith("Elsewhere"));
    QVERIFY(!cell(one, a, RunList::Status).startsWith("Elsewhere"));
    QVERIFY(one.finished());
    QTRY_COMPARE(cell(two, a, RunList::Status), QString("Finished"));
    QCOMPARE(cell(two, a, RunList::Perplexity), cell(one, a, RunList::Perplexity));
    QCOMPARE(two.workbench->selection()->find(a)->colour, one.workbench->selection()->find(a)->colour);
    two.workbench->rename(a, "by two");
    QTRY_COMPARE(cell(one, a, RunList::Name), QString("by two"));
    const QString b = two.startRun("of two");
    QVERIFY(two.finished());
    QTRY_COMPARE(cell(one, b, RunList::Status), QString("Finished"));
    one.workbench->remove(a);
    QTRY_VERIFY(!two.workbench->selection()->find(a));
    QVERIFY(two.workbench->selection()->find(b));
    QTest::qWait(100);
    QVERIFY(one.workbench->selection()->find(b));
    QCOMPARE(one.window->findChild<Explorer*>()->runView()->model()->rowCount(), 1);
  }

  void the_page_of_runs_is_filtered_and_compared_by_key() {
    Bench bench;
    QVERIFY(bench.ready());
    QStringList runs;
    for (const char* name : {"one", "two", "three"}) runs << bench.startRun(name);
    QVERIFY(bench.finished());
    bench.action("Filter runs")->trigger();
    QCOMPARE(bench.window->page(), QString("runs"));
    auto* page = bench.window->findChild<RunsPage*>();
    QVERIFY(page->isVisible() && page->filter() == bench.window->focusWidget());
    QTest::keyClicks(page->filter(), "name~t");  // two and three
    QTRY_COMPARE(page->table()->model()->rowCount(), 2);
    page->table()->selectAll();
    bench.action("Compare selected runs")->trigger();
    QTRY_COMPARE(bench.window->page(), QString("layers"));
    QTRY_VERIFY(!bench.workbench->selection()->find(runs[0])->shown && bench.workbench->selection()->find(runs[1])->shown && bench.workbench->selection()->find(runs[2])->shown);
    // What is chosen there is marked in the Explorer, too, and its columns are there the next time.
    bench.window->showPage("runs");
    QMenu menu;
    page->fillColumnMenu(&menu);
    for (QAction* action : menu.actions())
      if (action->text() == "Seed") action->trigger();
    bench.window->close();
    bench.stop();
    bench.start();
    QVERIFY(bench.ready());
    QTreeView* table = bench.window->findChild<RunsPage*>()->table();
    QTRY_COMPARE(table->model()->rowCount(), 3);
    for (int section = 0; section < table->header()->count(); ++section)
      if (table->model()->headerData(section, Qt::Horizontal).toString() == "Seed") QVERIFY(!table->isColumnHidden(section));
  }

  void reading_a_workspace_is_shown_instead_of_no_runs_yet() {
    Bench bench;
    QVERIFY(bench.ready());
    const QString path = bench.folder.filePath("large");
    {
      const auto large = Workspace::open(path.toStdString());
      for (int i = 0; i < 3; ++i) large->create_run(test::fake_recipe("r"));
    }
    QVERIFY(std::filesystem::remove(RunIndex::file(path.toStdString())));
    auto* explorer = bench.window->findChild<Explorer*>();
    const auto shown = [&](const QString& part) {
      for (QLabel* label : explorer->findChildren<QLabel*>())
        if (label->isVisible() && label->text().contains(part)) return true;
      return false;
    };
    QVERIFY(shown("No runs yet"));
    bench.pace->reading_waits = 1;
    bench.workbench->openWorkspace(path);
    QVERIFY(shown("Reading the workspace large") && !shown("No runs yet"));
    QTRY_VERIFY(shown("1 of 3 runs"));
    bench.pace->reading_waits = -1;
    QTRY_COMPARE(explorer->runView()->model()->rowCount(), 3);
    QVERIFY(!shown("Reading"));
  }

  void the_log_of_any_run_is_shown_and_followed() {
    Bench bench;
    QVERIFY(bench.ready());
    const QString id = bench.startRun("logged");
    QVERIFY(bench.finished());
    const QString file = QString::fromStdString((bench.workbench->runFolder(id) / "log.txt").string());
    const auto write = [&](const QByteArray& text) {
      QFile log(file);
      QVERIFY(log.open(QIODevice::Append));
      log.write(text);
    };
    bench.action("Show the run's log")->trigger();
    auto* window = bench.window->findChild<LogWindow*>();
    QVERIFY(window && window->isVisible());
    QVERIFY2(window->windowTitle().contains("logged"), qPrintable(window->windowTitle()));
    auto* text = window->findChild<QPlainTextEdit*>();
    QVERIFY(text->toPlainText().isEmpty() && text->placeholderText().contains("not begun"));
    write("block 0 done\nblock 1 d");
    QTRY_COMPARE(text->toPlainText(), QString("block 0 done"));  // whole lines
    write("one: 3 Größen\n");
    QTRY_COMPARE(text->toPlainText(), QString("block 0 done\nblock 1 done: 3 Größen"));
    bench.action("Show the run's log")->trigger();  // the same window again
    QCOMPARE(bench.window->findChildren<LogWindow*>().size(), 1);
    QFile::remove(file);
    write("begun anew\n");
    QTRY_COMPARE(text->toPlainText(), QString("begun anew"));
  }

  void an_action_goes_to_the_run_that_was_clicked_whatever_moved_meanwhile() {
    Bench bench;
    QVERIFY(bench.ready());
    const QString clicked = bench.startRun("clicked");
    QVERIFY(bench.finished());
    QTableView* runs = bench.window->findChild<Explorer*>()->runView();
    QSignalSpy said(bench.workbench.get(), &Workbench::status);
    int rowThen = -1;
    const auto choose = [&](const QString& text) {
      QTimer::singleShot(50, bench.window.get(), [&, text] {
        auto* menu = qobject_cast<QMenu*>(QApplication::activePopupWidget());
        if (!menu) return;
        auto newer = std::make_shared<RunReport>(*bench.workbench->selection()->find(clicked)->report);
        newer->id = "99999999-newer " + text.toStdString();
        bench.workbench->selection()->putRun(newer);  // above it
        for (int row = 0; row < runs->model()->rowCount(); ++row)
          if (runs->model()->index(row, 0).data(RunList::IdRole).toString() == clicked) rowThen = row;
        for (QAction* action : menu->actions())
          if (action->text() == text) action->trigger();
        menu->close();
      });
      const QModelIndex row = runs->model()->index(runs->model()->rowCount() - 1, RunList::Name);
      runs->selectionModel()->setCurrentIndex(row, QItemSelectionModel::ClearAndSelect | QItemSelectionModel::Rows);
      const QPoint at = runs->visualRect(row).center();
      QContextMenuEvent event(QContextMenuEvent::Mouse, at, runs->viewport()->mapToGlobal(at));
      QCoreApplication::sendEvent(runs->viewport(), &event);
    };
    choose("Copy as command line");
    QCOMPARE(rowThen, 1);  // it did move
    QVERIFY2(QGuiApplication::clipboard()->text().contains(clicked), qPrintable(QGuiApplication::clipboard()->text()));
    QVERIFY(!said.isEmpty() && said.last().front().toString().contains("command line of clicked"));
    choose("Show only the selected runs");
    QTRY_COMPARE(bench.workbench->selection()->shownRuns().size(), 1);
    QCOMPARE(bench.workbench->selection()->shownRuns().front().id, clicked);
    choose("Show its log");
    QCOMPARE(bench.window->findChild<LogWindow*>()->run(), clicked);
    choose("Hide in plots");
    QVERIFY(bench.workbench->selection()->shownRuns().isEmpty());
    choose("Delete…");
    auto* question = bench.window->findChild<QMessageBox*>();
    QVERIFY(question);
    auto newest = std::make_shared<RunReport>(*bench.workbench->selection()->find(clicked)->report);
    newest->id = "99999999-newest";
    bench.workbench->selection()->putRun(newest);
    for (QAbstractButton* button : question->buttons())
      if (button->text() == "Delete") button->click();
    QTRY_VERIFY(!bench.workbench->selection()->find(clicked));
    QVERIFY(bench.workbench->selection()->find("99999999-newest"));
  }

  void many_runs_are_searched() {
    Bench bench;
    QVERIFY(bench.ready());
    auto* explorer = bench.window->findChild<Explorer*>();
    const auto add = [&](int number) {
      auto run = std::make_shared<RunReport>();
      run->id = "run-" + std::to_string(100 + number);
      run->name = (number % 2 ? "gptq " : "rtn ") + std::to_string(number);
      run->scheme = number < 5 ? "W3A16 g64" : "W4A16 g64";
      run->model_path = "/models/tiny";
      run->status = RunStatus::finished;
      bench.workbench->selection()->putRun(run);
    };
    QLineEdit* search = nullptr;
    for (QLineEdit* edit : explorer->findChildren<QLineEdit*>())
      if (edit->accessibleName() == "Search in the runs") search = edit;
    for (int i = 0; i < 8; ++i) add(i);
    QVERIFY(search && !search->isVisible());
    add(8);
    QVERIFY(search->isVisible());
    const QAbstractItemModel* rows = explorer->runView()->model();
    QTest::keyClicks(search, "gptq w3a");
    QCOMPARE(rows->rowCount(), 2);
    search->clear();
    QTest::keyClicks(search, "run-106");
    QCOMPARE(rows->rowCount(), 1);
    QCOMPARE(rows->index(0, RunList::Name).data().toString(), QString("rtn 6"));
    QTest::keyClicks(search, "x");
    QCOMPARE(rows->rowCount(), 0);
    bool told = false;
    for (QLabel* label : explorer->findChildren<QLabel*>()) told = told || (label->isVisible() && label->text().contains("No run matches"));
    QVERIFY(told);
    search->clear();
    QCOMPARE(rows->rowCount(), 9);
  }

  void figures_of_two_runs_stand_side_by_side_at_the_first_width() {
    Bench bench;
    QVERIFY(bench.ready());
    const QString a = bench.startRun("a"), b = bench.startRun("b");
    QVERIFY(bench.finished());
    bench.window->showPage("layers");
    bench.workbench->makeCurrent(a);
    bench.workbench->selection()->setCurrentLinear({1, "mlp.down_proj"});
    QTableView* table = nullptr;
    for (QTableView* each : bench.window->findChildren<QTableView*>())
      if (each->accessibleName() == "Figures of the linear in each run") table = each;
    QVERIFY(table);
    QTRY_COMPARE(table->model()->columnCount(), 2);
    QTRY_VERIFY(table->isVisible());
    QTest::qWait(100);
    QVERIFY2(table->columnViewportPosition(1) + table->columnWidth(1) <= table->viewport()->width(),
             qPrintable(QString("%1 + %2 in %3").arg(table->columnViewportPosition(1)).arg(table->columnWidth(1)).arg(table->viewport()->width())));
    for (int row = 0; row < table->model()->rowCount(); ++row)  // and none is cut
      for (int column = 0; column < 2; ++column)
        QVERIFY(table->fontMetrics().horizontalAdvance(table->model()->index(row, column).data().toString()) + 6 <= table->columnWidth(column));
  }

  void every_action_has_a_name_and_no_shortcut_twice() {
    Bench bench;
    QHash<QString, QString> keys;
    for (const QAction* action : bench.window->actions()) {
      QVERIFY(!action->text().isEmpty());
      for (const QKeySequence& key : action->shortcuts()) {
        QVERIFY2(!keys.contains(key.toString()), qPrintable(key.toString() + " of " + action->text() + " and " + keys.value(key.toString())));
        keys[key.toString()] = action->text();
      }
    }
    for (const char* key : {"Ctrl+F", "Ctrl+S", "Ctrl+Z", "F1", "Ctrl+Return"}) QVERIFY2(keys.contains(key), key);
  }

  void the_sheet_of_shortcuts_lists_every_key() {
    Bench bench;
    QVERIFY(bench.ready());
    bench.action("Keyboard shortcuts")->trigger();
    auto* sheet = bench.window->findChild<ShortcutsSheet*>();
    QVERIFY(sheet && sheet->isVisible());
    const QString text = sheet->findChild<QTextBrowser*>()->toPlainText();
    const QStringList lines = text.split('\n');
    int listed = 0;
    for (const QAction* action : bench.window->findChildren<QAction*>()) {
      if (action->shortcuts().isEmpty() || sheet->isAncestorOf(qobject_cast<QWidget*>(action->parent()))) continue;
      // Keys in one cell, what they do in the next.
      const QVariant given = action->property("sheetText");
      const QString what = QString(given.isValid() ? given.toString() : action->text()).remove('&').remove("…");
      for (const QKeySequence& key : action->shortcuts()) {
        bool found = false;
        for (int i = 0; i + 1 < lines.size(); ++i)
          found = found || (lines[i].split(", ").contains(key.toString(QKeySequence::NativeText)) && lines[i + 1] == what);
        QVERIFY2(found, qPrintable(key.toString() + ": " + what));
      }
      ++listed;
    }
    QVERIFY2(listed > 25, qPrintable(QString::number(listed)));
    QVERIFY(bench.window->findChildren<QShortcut*>().isEmpty());  // keys belong to actions, so that they are listed
    for (const char* what : {"Delete runs", "Logarithmic axis", "Show the run's log", "Undo", "Explorer"}) QVERIFY2(text.contains(what), what);
    QCOMPARE(lines.filter("Logarithmic axis").size(), 1);  // once for all plots
  }

  void every_control_has_a_name_for_assistive_tools() {
    Bench bench;
    QVERIFY(bench.ready());
    for (const QAbstractButton* button : bench.window->findChildren<QAbstractButton*>()) {
      if (QString(button->metaObject()->className()).startsWith("QDockWidgetTitle") || button->objectName().startsWith("qt_")) continue;
      if (button->inherits("QCheckBox") || button->inherits("QLineEditIconButton") || !button->isVisible()) continue;
      const bool named = !button->text().isEmpty() || !button->accessibleName().isEmpty() || !button->toolTip().isEmpty();
      QVERIFY2(named, qPrintable(QString(button->metaObject()->className()) + " in " + button->parentWidget()->metaObject()->className()));
    }
  }

  void both_themes_have_readable_texts() {
    const auto luminance = [](const QColor& colour) {
      const auto channel = [](double c) { return c <= 0.03928 ? c / 12.92 : std::pow((c + 0.055) / 1.055, 2.4); };
      return 0.2126 * channel(colour.redF()) + 0.7152 * channel(colour.greenF()) + 0.0722 * channel(colour.blueF());
    };
    const auto contrast = [&](const QColor& a, const QColor& b) {
      const double high = std::max(luminance(a), luminance(b)), low = std::min(luminance(a), luminance(b));
      return (high + 0.05) / (low + 0.05);
    };
    const QPalette before = QApplication::palette();
    for (bool dark : {false, true}) {
      const QPalette palette = Theme::palette(dark);
      QApplication::setPalette(palette);
      using P = QPalette;
      for (const auto& [text, ground] : {std::pair(P::WindowText, P::Window), {P::Text, P::Base}, {P::ButtonText, P::Button}, {P::HighlightedText, P::Highlight}, {P::ToolTipText, P::ToolTipBase}, {P::Link, P::Base}})
        QVERIFY2(contrast(palette.color(text), palette.color(ground)) >= 4.5, qPrintable(QString("%1 %2").arg(dark).arg(int(text))));
      QVERIFY(contrast(palette.color(P::PlaceholderText), palette.color(P::Base)) >= 3.5);
      for (const QColor& colour : {Theme::error(), Theme::warning(), Theme::success()}) QVERIFY(contrast(colour, palette.color(P::Base)) >= 4.5);
    }
    QApplication::setPalette(before);
  }
};

QTEST_MAIN(TestMainWindow)
#include "test_main_window.moc"
