#include <QAction>
#include <QClipboard>
#include <QComboBox>
#include <QDockWidget>
#include <QDropEvent>
#include <QMessageBox>
#include <QMimeData>
#include <QPushButton>
#include <QSignalSpy>
#include <QTableView>
#include <QTemporaryDir>
#include <QTreeView>
#include <QtTest/QtTest>
#include <fstream>

#include "core/recipe/llmc.h"
#include "fake_services.h"
#include "views/MainWindow.h"
#include "views/pages/Explorer.h"
#include "views/pages/NoticeBar.h"
#include "views/pages/QueuePanel.h"
#include "views/pages/RecipePage.h"
#include "views/pages/WelcomePage.h"

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
    for (PerplexityResult& result : worse->perplexities) result.perplexity += 10;
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
    QCOMPARE(question->defaultButton()->text(), QString("Keep running"));
    question->defaultButton()->click();
    QCOMPARE(bench.pace->running.load(), 1);
    QTest::qWait(10);
    QVERIFY(!bench.window->close());
    question = bench.visible<QMessageBox>();
    QVERIFY(question);
    for (QAbstractButton* button : question->buttons())
      if (button->text() == "Stop and close") button->click();
    QTRY_VERIFY(!bench.window->isVisible());
    QCOMPARE(bench.pace->running.load(), 0);
    QCOMPARE(bench.workbench->queue()->jobOfRun(id)->state, JobState::Cancelled);
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
