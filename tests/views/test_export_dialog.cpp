#include <QAction>
#include <QClipboard>
#include <QComboBox>
#include <QDesktopServices>
#include <QLineEdit>
#include <QMenu>
#include <QMessageBox>
#include <QProgressBar>
#include <QPushButton>
#include <QTableView>
#include <QTemporaryDir>
#include <QtTest/QtTest>
#include <algorithm>
#include <atomic>
#include <fstream>

#include "core/base/resources.h"
#include "core/exporting/formats.h"
#include "views/MainWindow.h"
#include "views/models/Format.h"
#include "views/pages/ChoiceList.h"
#include "views/pages/Explorer.h"
#include "views/pages/ExportDialog.h"
#include "views/pages/NoticeBar.h"
#include "views/pages/QueuePanel.h"

using namespace qb;
using namespace qb::views;

namespace {

QString text(const std::string& value) { return QString::fromStdString(value); }

// Holds exports where they write, until let go or stopped.
struct Gate {
  std::atomic<bool> shut{false};
  std::atomic<int> held{0};
};

Services services_with(const std::shared_ptr<Gate>& gate) {
  Services services = coreServices();
  services.exportRun = [gate](const std::filesystem::path& run, const ExportOptions& options, const Control& control) {
    Control held = control;
    held.on_progress = [gate, control](const Progress& progress) {
      control.report(progress);
      if (progress.stage != "write" || !gate->shut) return;
      ++gate->held;
      while (gate->shut && !control.stop.stop_requested()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      --gate->held;
    };
    return export_run(run, options, held);
  };
  return services;
}

}  // namespace

// Real runs of the demo model, really exported.
class TestExportDialog : public QObject {
  Q_OBJECT

  // A window on a workspace with a finished run, "four bits", its twin where there shall be one, and one that has not begun, "later".
  struct Bench {
    QTemporaryDir folder;
    std::shared_ptr<Gate> gate = std::make_shared<Gate>();
    Settings settings;
    Theme theme;
    std::unique_ptr<Workbench> workbench;
    std::unique_ptr<MainWindow> window;
    QString run, twin, unfinished;

    explicit Bench(bool two = false) : settings(folder.filePath("settings.ini")) {
      const auto workspace = Workspace::open(folder.filePath("workspace").toStdString());
      Recipe recipe;
      recipe.name = "four bits";
      recipe.model = resource("demo");
      recipe.scheme.weights = QuantSpec{};
      recipe.scheme.weights->symmetric = false;
      recipe.scheme.weights->granularity = Granularity::group;
      recipe.scheme.weights->group_size = 64;
      recipe.pipeline.push_back({"rtn", {}});
      run = text(workspace->create_run(recipe));
      carry_out(*workspace, run.toStdString(), {}, {});
      if (two) {
        recipe.name = "twin";
        twin = text(workspace->create_run(recipe));
        carry_out(*workspace, twin.toStdString(), {}, {});
      }
      recipe.name = "later";
      unfinished = text(workspace->create_run(recipe));
      workbench = std::make_unique<Workbench>(services_with(gate));
      window = std::make_unique<MainWindow>(workbench.get(), &settings, &theme);
      window->restoreSession({}, folder.filePath("workspace"));
      window->show();
      workbench->prepare(0);
    }
    ~Bench() {
      gate->shut = false;
      window.reset();
      workbench.reset();
    }
    bool ready() {
      return QTest::qWaitFor([&] { return workbench->workspace() && workbench->background()->idle() && workbench->selection()->find(run); }, 20000);
    }
    std::filesystem::path runFolder() const { return workbench->runFolder(run); }
    QAction* action() {
      for (QAction* action : window->actions())
        if (QString(action->text()).remove('&') == "Export run…") return action;
      return nullptr;
    }
    ExportDialog* dialog() { return window->findChild<ExportDialog*>(); }
    // Opens the dialog by the window's action and waits until it says what can be chosen.
    ExportDialog* open(const QString& wanted = {}) {
      const QString id = wanted.isEmpty() ? run : wanted;
      workbench->makeCurrent(id);
      if (!QTest::qWaitFor([&] { return action()->isEnabled() && workbench->selection()->currentRun() == id; })) return nullptr;
      action()->trigger();
      ExportDialog* opened = nullptr;
      for (ExportDialog* each : window->findChildren<ExportDialog*>())
        if (each->run() == id) opened = each;
      return opened && QTest::qWaitFor([&] { return opened->formats()->current() && opened->startButton()->isEnabled(); }, 20000) ? opened : nullptr;
    }
    const Job* job() const { return workbench->queue()->jobs().isEmpty() ? nullptr : &workbench->queue()->jobs().last(); }
    bool ended() {
      return QTest::qWaitFor([&] { return job() && !job()->isActive() && !job()->isWaiting(); }, 30000);
    }
    // All that lies in the folder of exports, hidden names too, but for the window's own settings.
    QStringList left() const {
      QStringList names = QDir(folder.path()).entryList(QDir::AllEntries | QDir::Hidden | QDir::NoDotAndDotDot);
      names.removeIf([](const QString& name) { return name.startsWith("settings.ini"); });
      return names;
    }
  };

  static bool shows(QWidget* parent, const QString& sentence) {
    for (QLabel* label : parent->findChildren<QLabel*>())
      if (label->text() == sentence && !label->isHidden()) return true;
    return false;
  }

 private Q_SLOTS:
  void initTestCase() { QLocale::setDefault(QLocale::c()); }

  void every_format_and_engine_says_why_it_does_not_take_the_run() {
    Bench bench;
    QVERIFY(bench.ready());
    ExportDialog* dialog = bench.open();
    QVERIFY(dialog);
    QVERIFY(!dialog->isModal());
    const ExportSurvey survey = survey_exports(bench.runFolder());
    QCOMPARE(survey.formats.size(), export_formats().size());
    QCOMPARE(dialog->formats()->choices().size(), qsizetype(export_formats().size()));
    int refused = 0;
    for (const FormatOffer& offer : survey.formats) {
      QAbstractButton* button = dialog->formats()->button(text(offer.format));
      QCOMPARE(button->isEnabled(), offer.obstacles.empty());
      for (const std::string& obstacle : offer.obstacles) {
        ++refused;
        QVERIFY2(shows(dialog->formats(), text(obstacle)), obstacle.c_str());
        QVERIFY(button->accessibleDescription().contains(text(obstacle)));
      }
      if (!offer.obstacles.empty()) continue;
      QVERIFY(button->accessibleDescription().contains(formatBytes(double(offer.bytes))));
      button->click();
      QCOMPARE(dialog->engines()->choices().size(), qsizetype(export_engines().size()) + 1);  // and none in particular
      for (const EngineOffer& engine : offer.engines) {
        QAbstractButton* one = dialog->engines()->button(text(engine.engine));
        const EngineInfo* info = find_engine(engine.engine);
        QCOMPARE(one->isEnabled(), engine.obstacles.empty());
        QVERIFY(one->text().contains(text(info->version)));
        QVERIFY(one->accessibleDescription().contains(text(info->source)) && one->accessibleDescription().contains(text(info->date)));
        for (const std::string& obstacle : engine.obstacles) QVERIFY2(shows(dialog->engines(), text(obstacle)), obstacle.c_str());
      }
    }
    QVERIFY(refused > 0);  // GPTQ's first layout is symmetric
    const auto refusedLast = [](const QVector<Choice>& all) { return std::is_partitioned(all.begin(), all.end(), [](const Choice& choice) { return choice.obstacles.isEmpty(); }); };
    QVERIFY(refusedLast(dialog->formats()->choices()));
    QVERIFY(refusedLast(dialog->engines()->choices()) && dialog->engines()->choices().size() > 1);
    QVERIFY(!dialog->formats()->button("gptq")->isEnabled());
    QVERIFY(dialog->formats()->button("awq")->isEnabled());
  }

  void an_export_is_made_and_holds_the_run() {
    Bench bench;
    QVERIFY(bench.ready());
    ExportDialog* dialog = bench.open();
    QVERIFY(dialog);
    dialog->formats()->button("awq")->click();
    dialog->engines()->button("vllm")->click();
    QTRY_VERIFY(dialog->output()->text().endsWith("demo-W4A16-g64-asymmetric-awq"));
    QTRY_VERIFY(dialog->startButton()->isEnabled());
    const QString path = dialog->output()->text();
    QCOMPARE(QFileInfo(path).path(), bench.folder.path());  // beside the workspace
    dialog->startButton()->click();
    QVERIFY(bench.ended());
    QVERIFY2(bench.job()->state == JobState::Finished, qPrintable(bench.job()->error));
    QCOMPARE(text(export_difference(bench.runFolder(), path.toStdString())), QString());
    QVERIFY(QFile::exists(path + "/README.md"));
    // What was made, and how it is served.
    const auto line = [&](const char* name) {
      for (QLineEdit* edit : dialog->findChildren<QLineEdit*>())
        if (edit->accessibleName() == QLatin1String(name) && edit->isVisible()) return edit->text();
      return QString();
    };
    QTRY_COMPARE(line("Where the checkpoint lies"), path);
    QCOMPARE(line("Command line that serves the checkpoint"), "vllm serve " + path);
    const ExportResult& result = *bench.job()->exported;
    QVERIFY(shows(dialog, QString("%1, %2 % of the float model's %3").arg(formatBytes(double(result.bytes))).arg(qRound(100.0 * double(result.bytes) / double(result.source_bytes))).arg(formatBytes(double(result.source_bytes)))));
    QComboBox* engines = nullptr;
    for (QComboBox* box : dialog->findChildren<QComboBox*>())
      if (box->isVisible()) engines = box;
    QVERIFY(engines);
    engines->setCurrentIndex(engines->findData("transformers"));
    QCOMPARE(line("Command line that serves the checkpoint"), text(serve_command(*find_engine("transformers"), path.toStdString())));
    for (QPushButton* button : dialog->findChildren<QPushButton*>())
      if (button->text() == "&Copy") button->click();
    QCOMPARE(QGuiApplication::clipboard()->text(), line("Command line that serves the checkpoint"));
    QDesktopServices::setUrlHandler("file", this, "opened");
    for (QPushButton* button : dialog->findChildren<QPushButton*>())
      if (button->text().contains("file") && button->isVisible()) button->click();
    QDesktopServices::unsetUrlHandler("file");
    QCOMPARE(m_opened, QUrl::fromLocalFile(path));
    // The next one gets a name of its own.
    for (QPushButton* button : dialog->findChildren<QPushButton*>())
      if (button->text().startsWith("Another")) button->click();
    QTRY_COMPARE(dialog->output()->text(), path + "-2");
  }

  void a_stopped_export_leaves_nothing() {
    Bench bench;
    QVERIFY(bench.ready());
    ExportDialog* dialog = bench.open();
    QVERIFY(dialog);
    const QStringList before = bench.left();
    bench.gate->shut = true;
    dialog->startButton()->click();
    QTRY_COMPARE(bench.gate->held.load(), 1);
    QVERIFY(dialog->stopButton()->isVisible());
    QTRY_VERIFY(shows(dialog, "Writing the tensors…"));
    QVERIFY(bench.left() != before);  // a folder under another name
    QVERIFY(!QFile::exists(dialog->output()->text()));
    dialog->stopButton()->click();
    QVERIFY(bench.ended());
    QCOMPARE(bench.job()->state, JobState::Cancelled);
    QCOMPARE(bench.left(), before);
    QTRY_VERIFY(dialog->notices()->isVisible());
    QVERIFY(dialog->notices()->text().contains("stopped"));
    QTRY_VERIFY(dialog->startButton()->isVisible() && dialog->startButton()->isEnabled());  // as it was
    bench.gate->shut = false;
    dialog->startButton()->click();
    QVERIFY(bench.ended());
    QCOMPARE(bench.job()->state, JobState::Finished);
  }

  void an_output_that_cannot_be_is_refused_in_place() {
    Bench bench;
    QVERIFY(bench.ready());
    ExportDialog* dialog = bench.open();
    QVERIFY(dialog);
    const QString suggested = dialog->output()->text(), taken = bench.folder.filePath("taken");
    QDir().mkpath(taken);
    std::ofstream(QString(taken + "/notes.txt").toStdString()) << "mine";
    dialog->output()->setText(taken);
    QVERIFY(!dialog->startButton()->isEnabled());  // at once, before it is known
    QTRY_VERIFY(shows(dialog, taken + ": is there already; name a folder that is not"));
    QVERIFY(!dialog->startButton()->isEnabled());
    QCOMPARE(dialog->startButton()->toolTip(), taken + ": is there already; name a folder that is not");
    for (const QString& wrong : {QString(), QString("  "), QString("somewhere"), QString(taken + "/notes.txt/below")}) {
      dialog->output()->setText(wrong);
      QTRY_VERIFY(dialog->startButton()->toolTip().contains(wrong.trimmed().isEmpty() ? "Name the folder" : wrong.startsWith('s') ? "whole path" : "is a file"));
      QVERIFY(!dialog->startButton()->isEnabled());
    }
    dialog->output()->setText(suggested + '/');  // as shells complete it
    QTRY_VERIFY(dialog->startButton()->isEnabled());
    // Taken between the check and the start: the export says so in the same place.
    QDir().mkpath(suggested + "/mine");
    dialog->startButton()->click();
    QVERIFY(bench.ended());
    QCOMPARE(bench.job()->state, JobState::Failed);
    QTRY_VERIFY(dialog->notices()->isVisible());
    QVERIFY(dialog->notices()->text().contains("is there already"));
    QCOMPARE(dialog->notices()->kind(), NoticeBar::Error);
    QCOMPARE(QDir(suggested).entryList(QDir::AllEntries | QDir::NoDotAndDotDot), QStringList{"mine"});
  }

  void a_dismissed_dialog_leaves_its_export_going() {
    Bench bench;
    QVERIFY(bench.ready());
    ExportDialog* dialog = bench.open();
    QVERIFY(dialog);
    bench.gate->shut = true;
    dialog->startButton()->click();
    QTRY_COMPARE(bench.gate->held.load(), 1);
    const QString path = text(bench.job()->wanted.output.string());
    QTest::keyClick(dialog, Qt::Key_Escape);
    QTRY_VERIFY(!bench.dialog());
    QTableView* queue = bench.window->findChild<QueuePanel*>()->table();
    QCOMPARE(queue->model()->rowCount(), 1);
    QCOMPARE(queue->model()->index(0, 0).data().toString(), QString("four bits → compressed-tensors"));
    QCOMPARE(queue->model()->index(0, 1).data().toString(), QString("Running"));
    // The action finds it again.
    bench.action()->trigger();
    QVERIFY(bench.dialog());
    QCOMPARE(bench.dialog()->job(), bench.job()->id);
    QVERIFY(bench.dialog()->stopButton()->isVisible());
    bench.dialog()->close();
    QTRY_VERIFY(!bench.dialog());
    bench.gate->shut = false;
    QVERIFY(bench.ended());
    QTRY_VERIFY(bench.window->notices()->text().contains(path));
    QVERIFY(QFile::exists(path + "/config.json"));
    // And so does its row, with what was made.
    Q_EMIT queue->activated(queue->model()->index(0, 0));
    QVERIFY(bench.dialog());
    QTRY_VERIFY(shows(bench.dialog(), "Checkpoint"));
  }

  void two_runs_of_one_scheme_do_not_meet_in_one_folder() {
    Bench bench(true);
    QVERIFY(bench.ready());
    ExportDialog* first = bench.open();
    QVERIFY(first);
    const QString path = first->output()->text();
    bench.gate->shut = true;
    first->startButton()->click();
    QTRY_COMPARE(bench.gate->held.load(), 1);
    QVERIFY(!QFile::exists(path));  // it is not there before it is whole
    ExportDialog* second = bench.open(bench.twin);
    QVERIFY(second && second != first);
    QCOMPARE(second->output()->text(), path + "-2");
    second->output()->setText(path);
    QTRY_VERIFY(shows(second, path + ": another export is about to make it"));
    QVERIFY(!second->startButton()->isEnabled());
    second->output()->setText(path + "-2");
    QTRY_VERIFY(second->startButton()->isEnabled());
    second->startButton()->click();
    QCOMPARE(bench.job()->state, JobState::Queued);
    QVERIFY(shows(second, "Waiting for another export to end"));
    bench.gate->shut = false;
    QVERIFY(bench.ended());
    QVERIFY(QFile::exists(path + "/config.json") && QFile::exists(path + "-2/config.json"));
  }

  void closing_the_window_asks_while_an_export_goes_on() {
    Bench bench;
    QVERIFY(bench.ready());
    const QStringList before = bench.left();
    ExportDialog* dialog = bench.open();
    QVERIFY(dialog);
    bench.gate->shut = true;
    dialog->startButton()->click();
    QTRY_COMPARE(bench.gate->held.load(), 1);
    QVERIFY(!bench.window->close());
    QMessageBox* question = bench.window->findChild<QMessageBox*>();
    QVERIFY(question && question->isVisible());
    QCOMPARE(question->text(), QString("Stop the export that is going on and close?"));
    QCOMPARE(question->informativeText(), QString("Nothing is left of an export that is stopped."));
    for (QAbstractButton* button : question->buttons())
      if (button->text() == "Stop and close") button->click();
    QTRY_VERIFY(!bench.window->isVisible());
    QCOMPARE(bench.job()->state, JobState::Cancelled);
    QCOMPARE(bench.left(), before);
  }

  void only_a_finished_run_can_be_exported_and_the_action_says_so() {
    Bench bench;
    QVERIFY(bench.ready());
    QAction* action = bench.action();
    QVERIFY(!action->isEnabled());
    QVERIFY(action->toolTip().contains("Choose a finished run"));
    bench.workbench->makeCurrent(bench.unfinished);
    QTRY_VERIFY(action->toolTip().contains("later is not finished"));
    QVERIFY(!action->isEnabled());
    bench.workbench->makeCurrent(bench.run);
    QTRY_VERIFY(action->isEnabled());
    // The same in the list's menu.
    QTableView* runs = bench.window->findChild<Explorer*>()->runView();
    for (int row = 0; row < 2; ++row) {
      const QModelIndex index = runs->model()->index(row, RunList::Name);
      const bool finished = index.data().toString() == "four bits";
      bool seen = false;
      QTimer::singleShot(0, this, [&] {
        auto* menu = qobject_cast<QMenu*>(QApplication::activePopupWidget());
        if (!menu) return;
        for (QAction* each : menu->actions())
          if (each->text() == "Export…") seen = each->isEnabled() == finished && (finished || each->toolTip().contains("later is not finished"));
        menu->close();
      });
      Q_EMIT runs->customContextMenuRequested(runs->visualRect(index).center());
      QVERIFY(seen);
    }
  }

  void the_keyboard_is_enough() {
    Bench bench;
    QVERIFY(bench.ready());
    ExportDialog* dialog = bench.open();
    QVERIFY(dialog);
    dialog->activateWindow();
    QVERIFY(QTest::qWaitForWindowActive(dialog));
    QTRY_COMPARE(dialog->focusWidget(), static_cast<QWidget*>(dialog->formats()->button("compressed-tensors")));
    QTest::keyClick(dialog->focusWidget(), Qt::Key_Down);  // over the one that cannot be
    QCOMPARE(dialog->formats()->current()->key, QString("gptq_v2"));
    QTest::keyClick(dialog, Qt::Key_O, Qt::AltModifier);
    QCOMPARE(dialog->focusWidget(), static_cast<QWidget*>(dialog->output()));
    QTRY_VERIFY(dialog->output()->text().endsWith("gptq_v2"));
    QTRY_VERIFY(dialog->startButton()->isEnabled());
    QTest::keyClick(dialog, Qt::Key_F, Qt::AltModifier);
    QCOMPARE(dialog->focusWidget(), static_cast<QWidget*>(dialog->formats()->button("gptq_v2")));
    QTest::keyClick(dialog->focusWidget(), Qt::Key_Return);
    QVERIFY(bench.ended());
    QCOMPARE(bench.job()->state, JobState::Finished);
    QCOMPARE(bench.job()->wanted.format, std::string("gptq_v2"));
  }

  void every_control_has_a_name_for_assistive_tools() {
    Bench bench;
    QVERIFY(bench.ready());
    ExportDialog* dialog = bench.open();
    QVERIFY(dialog);
    dialog->startButton()->click();
    QVERIFY(bench.ended());
    for (QWidget* widget : dialog->findChildren<QWidget*>()) {
      if (auto* button = qobject_cast<QAbstractButton*>(widget); button && !button->inherits("QLineEditIconButton")) QVERIFY(!button->text().isEmpty() || !button->accessibleName().isEmpty());
      if (qobject_cast<QLineEdit*>(widget) || qobject_cast<QComboBox*>(widget) || qobject_cast<QProgressBar*>(widget)) QVERIFY2(!widget->accessibleName().isEmpty(), widget->metaObject()->className());
    }
  }

  void a_run_whose_model_has_gone_says_so() {
    Bench bench;
    QVERIFY(bench.ready());
    const std::string recipe = (bench.runFolder() / "recipe.yaml").string();
    Recipe moved = load_recipe(recipe);
    moved.model = bench.folder.filePath("gone").toStdString();
    std::ofstream(recipe) << to_yaml(moved);
    bench.workbench->makeCurrent(bench.run);
    QTRY_VERIFY(bench.action()->isEnabled());
    bench.action()->trigger();
    ExportDialog* dialog = bench.dialog();
    QVERIFY(dialog);
    QTRY_VERIFY(dialog->notices()->isVisible());
    QVERIFY(dialog->notices()->text().contains(bench.folder.filePath("gone")));
    QVERIFY(!dialog->startButton()->isVisible());
  }

 public Q_SLOTS:
  void opened(const QUrl& url) { m_opened = url; }

 private:
  QUrl m_opened;
};

QTEST_MAIN(TestExportDialog)
#include "test_export_dialog.moc"
