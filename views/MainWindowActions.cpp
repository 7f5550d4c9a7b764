// The window's menus, toolbar and what their actions ask for.
#include <QActionGroup>
#include <QApplication>
#include <QClipboard>
#include <QComboBox>
#include <QDesktopServices>
#include <QDockWidget>
#include <QFileDialog>
#include <QFileInfo>
#include <QLineEdit>
#include <QMenuBar>
#include <QMessageBox>
#include <QStatusBar>
#include <QTabWidget>
#include <QToolBar>
#include <QToolButton>

#include "views/Icons.h"
#include "views/MainWindow.h"
#include "views/pages/Dialogs.h"
#include "views/pages/Explorer.h"
#include "views/pages/HelpWindow.h"
#include "views/pages/MemoryGauge.h"
#include "views/pages/NoticeBar.h"
#include "views/pages/RecipePage.h"
#include "views/pages/RunsPage.h"
#include "views/pages/WelcomePage.h"
#include "views/report/ReportJob.h"

namespace qb::views {

QAction* MainWindow::add(QMenu* menu, const QString& iconName, const QString& text, const QKeySequence& keys, const std::function<void()>& run) {
  auto* action = new QAction(text, this);
  if (!iconName.isEmpty()) action->setIcon(icon(iconName));
  if (!keys.isEmpty()) action->setShortcut(keys);
  connect(action, &QAction::triggered, this, run);
  menu->addAction(action);
  addAction(action);
  return action;
}

void MainWindow::buildActions() {
  QMenu* file = menuBar()->addMenu(tr("&File"));
  add(file, QStringLiteral("new"), tr("&New recipe"), QKeySequence::New, [this] { m_workbench->newRecipe(); });
  add(file, QStringLiteral("open"), tr("&Open recipe or GGUF file…"), QKeySequence::Open, [this] { openFiles(); });
  add(file, QStringLiteral("model"), tr("Open &model folder…"), QKeySequence(Qt::CTRL | Qt::SHIFT | Qt::Key_O), [this] { openModelFolder(); });
  add(file, QStringLiteral("workspace"), tr("Open &workspace…"), {}, [this] { openWorkspace(); });
  m_recentMenu = file->addMenu(tr("Open &recent"));
  file->addSeparator();
  add(file, QStringLiteral("save"), tr("&Save recipe"), QKeySequence::Save, [this] { saveRecipe(false); });
  add(file, {}, tr("Save recipe &as…"), QKeySequence(Qt::CTRL | Qt::SHIFT | Qt::Key_S), [this] { saveRecipe(true); });
  add(file, {}, tr("Save as &LLMC YAML…"), {}, [this] {
    askWhereToSave(tr("Save for LLMC"), m_workbench->document()->title() + QStringLiteral(".llmc.yml"), [this](const QString& path) { m_workbench->saveLlmc(path); });
  });
  add(file, {}, tr("Save &best recipe…"), QKeySequence(Qt::CTRL | Qt::Key_B), [this] {
    const QString best = m_workbench->bestRun();
    if (best.isEmpty()) return m_notices->tell(NoticeBar::Info, tr("No finished run with a perplexity yet: start a run with an evaluation text first."));
    const QString name = QString::fromStdString(m_workbench->selection()->find(best)->report->name);
    askWhereToSave(tr("Save the recipe of %1, the lowest perplexity").arg(name), name + QStringLiteral(".yaml"), [this](const QString& path) { m_workbench->saveBestRecipe(path); });
  });
  file->addSeparator();
  add(file, {}, tr("&Quit"), QKeySequence::Quit, [this] { close(); });

  QMenu* edit = menuBar()->addMenu(tr("&Edit"));
  QUndoStack* stack = m_workbench->document()->undoStack();
  QAction* undo = stack->createUndoAction(this, tr("&Undo"));
  undo->setShortcut(QKeySequence::Undo);
  undo->setIcon(icon(QStringLiteral("undo")));
  QAction* redo = stack->createRedoAction(this, tr("&Redo"));
  redo->setShortcut(QKeySequence::Redo);
  redo->setIcon(icon(QStringLiteral("redo")));
  undo->setProperty("sheetText", tr("Undo"));  // its text tells the step
  redo->setProperty("sheetText", tr("Redo"));
  for (QAction* action : {undo, redo}) {
    edit->addAction(action);
    addAction(action);
    connect(action, &QAction::triggered, this, [this] { showPage(QStringLiteral("recipe")); });
  }
  edit->addSeparator();
  add(edit, QStringLiteral("search"), tr("&Find in models"), QKeySequence::Find, [this] {
    m_explorerDock->show();
    m_explorerDock->raise();
    m_explorer->focusSearch();
  });
  add(edit, {}, tr("Fi&lter runs"), QKeySequence(Qt::CTRL | Qt::SHIFT | Qt::Key_F), [this] {
    m_pages->setCurrentIndex(Runs);
    m_runs->filter()->setFocus();
    m_runs->filter()->selectAll();
  });
  add(edit, QStringLiteral("copy"), tr("Copy as &command line"), QKeySequence(Qt::CTRL | Qt::SHIFT | Qt::Key_C), [this] {
    QApplication::clipboard()->setText(m_workbench->commandLine());
    statusBar()->showMessage(tr("Copied: paste it in a terminal to do the same there"), 6000);
  });
  edit->addSeparator();
  add(edit, QStringLiteral("settings"), tr("Se&ttings…"), QKeySequence(Qt::CTRL | Qt::Key_Comma), [this] { (new SettingsDialog(m_settings, m_theme, m_workbench->queue(), this))->show(); });

  QMenu* run = menuBar()->addMenu(tr("&Run"));
  m_start = add(run, QStringLiteral("start"), tr("&Start run"), QKeySequence(Qt::CTRL | Qt::Key_Return), [this] { m_workbench->start(); });
  m_compare = add(run, QStringLiteral("compare"), tr("&Compare selected runs"), QKeySequence(Qt::CTRL | Qt::Key_K), [this] { compare(chosenRuns()); });
  m_export = add(run, QStringLiteral("export"), tr("&Export run…"), QKeySequence(Qt::CTRL | Qt::SHIFT | Qt::Key_E), [this] { exportRun(m_workbench->selection()->currentRun()); });
  add(run, {}, tr("Rep&ort…"), {}, [this] {
    QStringList finished;
    const auto gather = [&](const QStringList& runs) {
      for (const QString& id : runs)
        if (const RunEntry* entry = m_workbench->selection()->find(id); entry && entry->report->status == RunStatus::finished) finished << id;
    };
    gather(chosenRuns());
    if (finished.isEmpty())
      for (const RunEntry& entry : m_workbench->selection()->shownRuns()) gather({entry.id});
    if (finished.isEmpty()) return m_notices->tell(NoticeBar::Info, tr("A report is of finished runs: choose some in a list, or show them by their eyes."));
    const QString name = tr("%1 report").arg(QString::fromStdString(m_workbench->selection()->find(finished.front())->report->model_name));
    ReportJob::ask(this, m_workbench->workspacePath(), finished, name, [this](const QString& path, const QString& problem) {
      if (!problem.isEmpty()) return m_notices->tell(NoticeBar::Error, problem);
      m_notices->tell(NoticeBar::Info, tr("Report written: %1").arg(path), {{tr("Open"), [path] { QDesktopServices::openUrl(QUrl::fromLocalFile(path)); }}});
    });
  });
  add(run, {}, tr("Show the run's &log"), QKeySequence(Qt::CTRL | Qt::Key_L), [this] { showLog(m_workbench->selection()->currentRun()); });
  run->setToolTipsVisible(true);  // why a run cannot be exported
  run->addSeparator();
  const auto each = [this](auto test, auto act) {
    QVector<int> ids;
    for (const Job& job : m_workbench->queue()->jobs())
      if (test(job)) ids << job.id;
    for (int id : ids) act(id);
  };
  RunQueue* queue = m_workbench->queue();
  add(run, QStringLiteral("pause"), tr("&Pause all"), {}, [each, queue] { each([](const Job& job) { return job.canPause(); }, [queue](int id) { queue->pause(id); }); });
  add(run, QStringLiteral("resume"), tr("&Resume paused"), {}, [each, queue] {
    each([](const Job& job) { return job.state == JobState::Paused || job.state == JobState::Held; }, [queue](int id) { queue->resume(id); });
  });
  add(run, QStringLiteral("stop"), tr("S&top all"), {}, [queue] { queue->cancelAll(); });
  buildViewMenu();

  QMenu* help = menuBar()->addMenu(tr("&Help"));
  QAction* sheet = add(help, {}, tr("&Keyboard shortcuts"), {}, [this] { showShortcuts(); });
  sheet->setShortcuts({QKeySequence(Qt::Key_F1), QKeySequence(Qt::Key_Question)});
  add(help, {}, tr("&Planning a large study"), {}, [this] { showHelp(QStringLiteral("scale")); });
  add(help, QStringLiteral("demo"), tr("Try the &demo"), {}, [this] { tryDemo(); });
  add(help, {}, tr("&About LLM-QBench Workbench"), {}, [this] { showAbout(); });
}

void MainWindow::buildViewMenu() {
  QMenu* view = menuBar()->addMenu(tr("&View"));
  for (int page = 0; page < m_pages->count(); ++page)
    add(view, {}, m_pages->tabText(page), QKeySequence(Qt::ALT | Qt::Key(Qt::Key_1 + page)), [this, page] { m_pages->setCurrentIndex(page); });
  view->addSeparator();
  const QList<QPair<QDockWidget*, QKeySequence>> docks{{m_explorerDock, QKeySequence(Qt::CTRL | Qt::Key_1)}, {m_inspectorDock, QKeySequence(Qt::CTRL | Qt::Key_2)}, {m_queueDock, QKeySequence(Qt::CTRL | Qt::Key_3)}};
  for (const auto& [dock, keys] : docks) {
    QAction* action = dock->toggleViewAction();
    action->setShortcut(keys);
    view->addAction(action);
    addAction(action);
  }
  add(view, {}, tr("&Reset layout"), {}, [this] { resetLayout(); });
  view->addSeparator();
  QMenu* themes = view->addMenu(tr("&Theme"));
  auto* group = new QActionGroup(this);
  const QStringList names{tr("As the desktop"), tr("Light"), tr("Dark")};
  for (int i = 0; i < names.size(); ++i) {
    QAction* action = themes->addAction(names[i], this, [this, i] {
      m_settings->setTheme(ThemeChoice(i));
      m_theme->choose(ThemeChoice(i));
    });
    action->setCheckable(true);
    group->addAction(action);
  }
  connect(themes, &QMenu::aboutToShow, this, [this, group] { group->actions()[int(m_theme->choice())]->setChecked(true); });
}

void MainWindow::buildToolBar() {
  QToolBar* bar = addToolBar(tr("Main toolbar"));
  bar->setObjectName(QStringLiteral("toolbar"));
  bar->setMovable(false);
  bar->setToolButtonStyle(Qt::ToolButtonTextBesideIcon);
  bar->setIconSize({16, 16});
  bar->addAction(icon(QStringLiteral("model")), tr("Open model"), this, &MainWindow::openModelFolder)->setToolTip(tr("Open a model folder (Ctrl+Shift+O)"));
  bar->addAction(icon(QStringLiteral("new")), tr("New recipe"), m_workbench, &Workbench::newRecipe)->setToolTip(tr("A new recipe for the same model and texts (Ctrl+N)"));
  bar->addAction(m_start);
  bar->addAction(m_compare);
  m_start->setIconText(tr("Start"));
  m_compare->setIconText(tr("Compare"));
  bar->addAction(m_export);
  m_export->setIconText(tr("Export"));
  auto* space = new QWidget;
  space->setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Preferred);
  bar->addWidget(space);
  m_workspaceButton = new QToolButton;
  m_workspaceButton->setIcon(icon(QStringLiteral("workspace")));
  m_workspaceButton->setToolButtonStyle(Qt::ToolButtonTextBesideIcon);
  m_workspaceButton->setText(tr("Workspace"));
  m_workspaceButton->setAutoRaise(true);
  connect(m_workspaceButton, &QToolButton::clicked, this, &MainWindow::openWorkspace);
  bar->addWidget(m_workspaceButton);
  m_devices = new QComboBox;
  m_devices->setAccessibleName(tr("Device for new runs"));
  m_devices->setToolTip(tr("Where new runs are computed"));
  m_devices->setSizeAdjustPolicy(QComboBox::AdjustToContents);
  m_devices->setMaximumWidth(fontMetrics().horizontalAdvance(QLatin1Char('n')) * 30);
  m_devices->addItem(QStringLiteral("cpu"), QStringLiteral("cpu"));
  bar->addWidget(m_devices);
  m_gauge = new MemoryGauge;
  bar->addWidget(m_gauge);
  connect(m_devices, &QComboBox::activated, this, [this](int index) { m_workbench->setDevice(m_devices->itemData(index).toString()); });
  connect(m_workbench, &Workbench::devicesChanged, this, [this] {
    m_devices->clear();
    for (const DeviceInfo& device : m_workbench->devices()) {
      m_devices->addItem(QStringLiteral("%1: %2").arg(QString::fromStdString(device.name), QString::fromStdString(device.label)), QString::fromStdString(device.name));
      if (device.name == "cpu") m_gauge->setTotal(device.memory_bytes);
    }
    m_devices->setCurrentIndex(std::max(0, m_devices->findData(m_workbench->device())));
  });
}

void MainWindow::fillRecent() {
  const QStringList recent = m_settings->recent();
  m_welcome->setRecent(recent);
  m_recentMenu->clear();
  for (const QString& path : recent) m_recentMenu->addAction(path, this, [this, path] { m_workbench->openPath(path); });
  m_recentMenu->setEnabled(!recent.isEmpty());
  m_recentMenu->addSeparator();
  m_recentMenu->addAction(tr("Clear this list"), this, [this] {
    m_settings->clearRecent();
    fillRecent();
  });
}

void MainWindow::openModelFolder() {
  auto* dialog = new QFileDialog(this, tr("Open a model folder (with config.json)"));
  dialog->setFileMode(QFileDialog::Directory);
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  connect(dialog, &QFileDialog::fileSelected, this, [this](const QString& path) { m_workbench->openModel(path); });
  dialog->open();
}

void MainWindow::openFiles() {
  auto* dialog = new QFileDialog(this, tr("Open"), {}, tr("Recipes and GGUF models (*.yaml *.yml *.gguf);;All files (*)"));
  dialog->setFileMode(QFileDialog::ExistingFiles);
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  connect(dialog, &QFileDialog::filesSelected, this, [this](const QStringList& paths) {
    for (const QString& path : paths) m_workbench->openPath(path);
  });
  dialog->open();
}

void MainWindow::openWorkspace() {
  auto* dialog = new QFileDialog(this, tr("Open or make a workspace folder"), m_workbench->workspacePath());
  dialog->setFileMode(QFileDialog::Directory);
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  connect(dialog, &QFileDialog::fileSelected, this, [this](const QString& path) { m_workbench->openWorkspace(path); });
  dialog->open();
}

void MainWindow::askWhereToSave(const QString& title, const QString& name, std::function<void(const QString&)> save) {
  const QString folder = m_workbench->document()->path().isEmpty() ? QString() : QFileInfo(m_workbench->document()->path()).path() + QLatin1Char('/');
  auto* dialog = new QFileDialog(this, title, {}, tr("YAML files (*.yaml *.yml)"));
  dialog->setAcceptMode(QFileDialog::AcceptSave);
  dialog->setDefaultSuffix(QStringLiteral("yaml"));
  if (!folder.isEmpty()) dialog->setDirectory(folder);
  dialog->selectFile(QString(name).replace(QLatin1Char('/'), QLatin1Char('-')));
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  connect(dialog, &QFileDialog::fileSelected, this, save);
  dialog->open();
}

void MainWindow::saveRecipe(bool ask) {
  RecipeDocument* document = m_workbench->document();
  if (!ask && !document->path().isEmpty()) return m_workbench->saveRecipe(document->path());
  askWhereToSave(tr("Save the recipe"), document->title() + QStringLiteral(".yaml"), [this](const QString& path) { m_workbench->saveRecipe(path); });
}

void MainWindow::showShortcuts() { (new ShortcutsSheet(this))->show(); }

void MainWindow::showHelp(const QString& page) {
  for (HelpWindow* window : findChildren<HelpWindow*>()) {
    if (window->page() != page || window->isHidden()) continue;
    window->raise();
    window->activateWindow();
    return;
  }
  (new HelpWindow(m_workbench->background(), page, this))->show();
}

void MainWindow::showAbout() {
  auto* box = new QMessageBox(QMessageBox::NoIcon, tr("About"),
                              tr("<h3>LLM-QBench Workbench %1</h3><p>Finds the best way to quantize a large language model after training.</p>"
                                 "<p>After the paper LLM-QBench, arXiv 2405.06001. Free software under the GNU General Public License, version 3 or later.</p>")
                                  .arg(QApplication::applicationVersion()),
                              QMessageBox::Ok, this);
  box->setAttribute(Qt::WA_DeleteOnClose);
  box->open();
}

}  // namespace qb::views
