#include "views/MainWindow.h"

#include <QApplication>
#include <QCloseEvent>
#include <QComboBox>
#include <QDir>
#include <QDockWidget>
#include <QFileInfo>
#include <QMessageBox>
#include <QMimeData>
#include <QSplitter>
#include <QPushButton>
#include <QStatusBar>
#include <QUrl>
#include <algorithm>
#include <QTabWidget>
#include <QTimer>
#include <QToolBar>
#include <QVBoxLayout>

#include "core/base/error.h"
#include "views/Icons.h"
#include "views/pages/AccuracyPage.h"
#include "views/pages/BestPage.h"
#include "views/pages/BitsPage.h"
#include "views/pages/DataPage.h"
#include "views/pages/Explorer.h"
#include "views/pages/ExportDialog.h"
#include "views/pages/Inspector.h"
#include "views/pages/LayersPage.h"
#include "views/pages/LogWindow.h"
#include "views/pages/NoticeBar.h"
#include "views/pages/QueuePanel.h"
#include "views/pages/RecipePage.h"
#include "views/pages/RunsPage.h"
#include "views/pages/SweepDialog.h"
#include "views/pages/WelcomePage.h"

namespace qb::views {
namespace {

constexpr int kStateVersion = 1;
const QStringList kPageNames{"welcome", "recipe", "runs", "layers", "accuracy", "data", "best"};

NoticeBar::Kind barKind(Workbench::Kind kind) {
  return kind == Workbench::Kind::Info ? NoticeBar::Info : kind == Workbench::Kind::Warning ? NoticeBar::Warning : NoticeBar::Error;
}

}  // namespace

MainWindow::MainWindow(Workbench* workbench, Settings* settings, Theme* theme, QWidget* parent)
    : QMainWindow(parent), m_workbench(workbench), m_settings(settings), m_theme(theme) {
  setObjectName(QStringLiteral("MainWindow"));
  setWindowTitle(tr("LLM-QBench Workbench"));
  setAcceptDrops(true);
  setDockOptions(AnimatedDocks | AllowNestedDocks | AllowTabbedDocks);
  setCorner(Qt::BottomLeftCorner, Qt::BottomDockWidgetArea);
  setCorner(Qt::BottomRightCorner, Qt::BottomDockWidgetArea);
  buildPages();
  buildDocks();
  buildActions();
  buildToolBar();
  connectWorkbench();
  resize(1280, 800);
  resetLayout();
  statusBar()->setSizeGripEnabled(true);
}

MainWindow::~MainWindow() {
  // Pages outlive parts of the window while children go; nothing may call back by then.
  m_workbench->disconnect(this);
  m_pages->disconnect(this);
}

void MainWindow::buildPages() {
  m_welcome = new WelcomePage;
  m_recipe = new RecipePage(m_workbench->document(), m_workbench->background());
  m_recipe->setModels(m_workbench->models());
  m_recipe->setFileCheck(m_workbench->services().lookAtFiles);
  m_runs = new RunsPage(m_workbench);
  auto* errors = new LayersPage(m_workbench->selection());
  connect(errors, &LayersPage::bitsWanted, m_workbench, &Workbench::giveBits);
  m_bits = new BitsPage(m_workbench);
  m_layers = new QTabWidget;
  m_layers->setDocumentMode(true);
  m_layers->addTab(errors, tr("Errors of runs"));
  m_layers->addTab(m_bits, tr("Where bits pay"));
  m_layers->setTabToolTip(1, tr("How sensitive is each linear, and which bits shall it have?"));
  auto* accuracy = new AccuracyPage(m_workbench->selection());
  accuracy->setRecipeReader([this](const QStringList& runs, const auto& then) { m_workbench->readRecipes(runs, then); });
  connect(accuracy, &AccuracyPage::onlyWanted, m_workbench, &Workbench::showOnly);
  m_accuracy = accuracy;
  m_pages = new QTabWidget;
  m_pages->setDocumentMode(true);
  m_pages->addTab(m_welcome, icon(QStringLiteral("home")), tr("Welcome"));
  m_pages->addTab(m_recipe, icon(QStringLiteral("recipe")), tr("Recipe"));
  m_pages->addTab(m_runs, icon(QStringLiteral("table")), tr("Runs"));
  m_pages->addTab(m_layers, icon(QStringLiteral("layers")), tr("Layers"));
  m_pages->addTab(m_accuracy, icon(QStringLiteral("chart")), tr("Accuracy"));
  m_pages->addTab(new DataPage(m_workbench), icon(QStringLiteral("data")), tr("Data"));
  auto* best = new BestPage(m_workbench);
  m_pages->addTab(best, icon(QStringLiteral("best")), tr("Best practice"));
  connect(best, &BestPage::exportRequested, this, [this](const QString& run) { exportRun(run); });
  connect(best, &BestPage::pageRequested, this, &MainWindow::showPage);
  m_pages->setTabToolTip(Best, tr("Which recipe do I take home?"));
  m_pages->setTabToolTip(Data, tr("Is my calibration text like my use?"));
  m_pages->setTabToolTip(Recipe, tr("What will I try?"));
  m_pages->setTabToolTip(Runs, tr("What was tried, what came of it?"));
  m_pages->setTabToolTip(Layers, tr("Where does it hurt?"));
  m_pages->setTabToolTip(Accuracy, tr("What does it cost, what does it give?"));
  m_notices = new NoticeBar;
  auto* centre = new QWidget;
  auto* column = new QVBoxLayout(centre);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(0);
  column->addWidget(m_notices);
  column->addWidget(m_pages, 1);
  setCentralWidget(centre);
  connect(m_pages, &QTabWidget::currentChanged, this, &MainWindow::pageChanged);
  connect(m_runs, &RunsPage::compareRequested, this, &MainWindow::compare);
  connect(m_runs, &RunsPage::exportRequested, this, [this](const QString& run) { exportRun(run); });
  connect(m_runs, &RunsPage::logRequested, this, &MainWindow::showLog);
  connect(m_runs, &RunsPage::pageRequested, this, &MainWindow::showPage);
  connect(m_welcome, &WelcomePage::openModelRequested, this, &MainWindow::openModelFolder);
  connect(m_welcome, &WelcomePage::openWorkspaceRequested, this, &MainWindow::openWorkspace);
  connect(m_welcome, &WelcomePage::demoRequested, this, &MainWindow::tryDemo);
  connect(m_welcome, &WelcomePage::recentRequested, m_workbench, &Workbench::openPath);
}

void MainWindow::buildDocks() {
  const auto dock = [this](const QString& title, const QString& name, QWidget* content, Qt::DockWidgetArea area) {
    auto* made = new QDockWidget(title);
    made->setObjectName(name);
    made->setWidget(content);
    addDockWidget(area, made);
    return made;
  };
  m_explorer = new Explorer(m_workbench);
  m_queuePanel = new QueuePanel(m_workbench->queue());
  m_explorerDock = dock(tr("Explorer"), QStringLiteral("explorer"), m_explorer, Qt::LeftDockWidgetArea);
  auto* inspector = new Inspector(m_workbench->selection());
  inspector->setTensorReader(m_workbench->background(), m_workbench->services().lookAtTensor);
  if (const auto& clips = m_workbench->services().clipRanges)
    inspector->setClipReader(m_workbench->background(), clips, [this](const QString& run) { return m_workbench->runFolder(run); });
  m_inspectorDock = dock(tr("Inspector"), QStringLiteral("inspector"), inspector, Qt::RightDockWidgetArea);
  m_queueDock = dock(tr("Queue"), QStringLiteral("queue"), m_queuePanel, Qt::BottomDockWidgetArea);
  connect(m_explorer, &Explorer::openModelRequested, this, &MainWindow::openModelFolder);
  connect(m_explorer, &Explorer::compareRequested, this, &MainWindow::compare);
  connect(m_explorer, &Explorer::exportRequested, this, [this](const QString& run) { exportRun(run); });
  connect(m_queuePanel, &QueuePanel::exportRequested, this, [this](int id) {
    if (const Job* job = m_workbench->queue()->job(id)) exportRun(job->runId, id);
  });
  connect(m_explorer, &Explorer::logRequested, this, &MainWindow::showLog);
  connect(m_explorer, &Explorer::pageRequested, this, &MainWindow::showPage);
  connect(m_explorer, &Explorer::tensorChosen, this, [this] {  // on any page: what was clicked is to be seen
    if (m_inspectorDock->isHidden() && !hasInspector()) m_glance = true;
    m_inspectorDock->show();
    m_inspectorDock->raise();
  });
  connect(qApp, &QApplication::focusChanged, this, [this](QWidget*, QWidget* now) {
    if (m_glance && now && m_pages->isAncestorOf(now)) pageChanged();
  });
  connect(m_inspectorDock, &QDockWidget::visibilityChanged, this, [this] {
    if (!m_switchingPage && isVisible() && hasInspector()) m_inspectorWanted = !m_inspectorDock->isHidden();
  });
}

void MainWindow::connectWorkbench() {
  connect(m_workbench, &Workbench::notice, this, [this](Workbench::Place place, Workbench::Kind kind, const QString& text) {
    const bool recipe = place == Workbench::Place::Recipe;
    if (recipe) showPage(QStringLiteral("recipe"));
    (recipe ? m_recipe->notices() : m_notices)->tell(barKind(kind), text);
  });
  connect(m_workbench, &Workbench::status, this, [this](const QString& text) { statusBar()->showMessage(text, 8000); });
  connect(m_workbench, &Workbench::opened, this, [this](const QString& kind, const QString& path) {
    if (kind == QLatin1String("workspace")) {
      if (path == m_settings->workspace()) return;  // the one that opens by itself
      m_settings->setWorkspace(path);
    }
    m_settings->addRecent(path);
    fillRecent();
    if (kind == QLatin1String("model") && page() == QLatin1String("welcome") && m_restored) showPage(QStringLiteral("recipe"));
  });
  connect(m_workbench, &Workbench::recipeShown, this, [this] {
    if (m_restored) showPage(QStringLiteral("recipe"));
  });
  connect(m_workbench, &Workbench::sweepFound, this, [this](const QString& path) {
    m_settings->addRecent(path);
    fillRecent();
    for (SweepDialog* dialog : findChildren<SweepDialog*>()) {
      if (dialog->path() != path || dialog->isHidden()) continue;
      dialog->survey();
      dialog->raise();
      dialog->activateWindow();
      return;
    }
    (new SweepDialog(m_workbench, path, this))->show();
  });
  connect(m_workbench, &Workbench::presetsChanged, this, [this] { m_recipe->setPresets(m_workbench->presets()); });
  connect(m_workbench, &Workbench::workspaceChanged, this, [this] {
    const QString name = QFileInfo(m_workbench->workspacePath()).fileName();
    const bool writable = !m_workbench->workspace() || m_workbench->workspace()->writable();
    m_workspaceButton->setText(writable ? name : tr("%1 (read only)").arg(name));
    m_workspaceButton->setToolTip(tr("Workspace: %1\n%2Click to open another one")
                                      .arg(m_workbench->workspacePath(), writable ? QString() : tr("It cannot be written: its runs can be looked at, new ones need another workspace.\n")));
    showTitle();
  });
  connect(m_workbench->document(), &RecipeDocument::textChanged, this, &MainWindow::showTitle);
  connect(m_workbench->document(), &RecipeDocument::modifiedChanged, this, &MainWindow::showTitle);
  for (const auto signal : {&Selection::currentModelChanged, &Selection::modelsChanged}) connect(m_workbench->selection(), signal, this, &MainWindow::showTitle);
  const auto showQueue = [this] {
    m_queueDock->show();
    m_queueDock->raise();
  };
  connect(m_workbench, &Workbench::started, this, showQueue);
  connect(m_workbench, &Workbench::exportStarted, this, showQueue);
  for (const auto signal : {&Selection::runsChanged, &Selection::currentRunChanged}) connect(m_workbench->selection(), signal, this, &MainWindow::showExportObstacle);
  connect(m_workbench->selection(), &Selection::runUpdated, this, &MainWindow::showExportObstacle);
  connect(m_workbench->queue(), &RunQueue::ended, this, &MainWindow::showExportObstacle);
  connect(m_workbench, &Workbench::workspaceChanged, this, &MainWindow::showExportObstacle);
  showExportObstacle();
  connect(m_workbench, &Workbench::demoStarted, this, [this] { showPage(QStringLiteral("layers")); });
  connect(m_recipe, &RecipePage::startRequested, m_workbench, &Workbench::start);
  connect(m_recipe, &RecipePage::saveRequested, this, [this] { saveRecipe(false); });
  connect(m_recipe, &RecipePage::obstacleChanged, this, [this] { m_start->setEnabled(m_recipe->obstacle().isEmpty()); });
  m_start->setEnabled(m_recipe->obstacle().isEmpty());
  connect(m_workbench->queue(), &RunQueue::ended, this, [this](int id) {
    const Job* job = m_workbench->queue()->job(id);
    if (!job || m_closing) return;
    if (job->kind == JobKind::Export) return exportEnded(*job);
    if (job->kind == JobKind::Survey && job->state == JobState::Finished) return statusBar()->showMessage(tr("%1 is done").arg(job->name), 15000);
    if (job->state == JobState::Failed)
      m_notices->tell(NoticeBar::Error, tr("%1 failed: %2").arg(job->name, job->error), {{tr("Resume"), [this, id] { m_workbench->queue()->resume(id); }}});
    if (job->state == JobState::Interrupted)
      m_notices->tell(NoticeBar::Error, tr("%1 was interrupted: %2").arg(job->name, job->error), {{tr("Resume"), [this, id] { m_workbench->queue()->resume(id); }}});
    if (job->state == JobState::Finished) {
      const EvaluationResult* result = job->report ? mainPerplexity(*job->report) : nullptr;
      statusBar()->showMessage(result ? tr("%1 is done: %2").arg(job->name, evaluationText(*result)) : tr("%1 is done").arg(job->name), 15000);
      if (!isActiveWindow()) QApplication::alert(this);
    }
  });
  connect(m_workbench, &Workbench::foundWaiting, this, [this](int runs) {
    const QVector<Job>& jobs = m_workbench->queue()->jobs();
    if (std::none_of(jobs.begin(), jobs.end(), [](const Job& job) { return job.state == JobState::Queued && !job.ours; })) return;  // they were started right away
    m_notices->tell(NoticeBar::Info, runs == 1 ? tr("A run waits in this workspace's queue.") : tr("%1 runs wait in this workspace's queue.").arg(runs),
                    {{tr("Start"), [this] { m_workbench->queue()->startWaiting(); }}});
  }, Qt::QueuedConnection);
  connect(m_workbench->queue(), &RunQueue::idle, this, [this] {
    if (m_closing) close();
  });
}

// Docks as a first start has them, whatever became of them.
void MainWindow::resetLayout() {
  const QList<QPair<QDockWidget*, Qt::DockWidgetArea>> places{{m_explorerDock, Qt::LeftDockWidgetArea}, {m_inspectorDock, Qt::RightDockWidgetArea}, {m_queueDock, Qt::BottomDockWidgetArea}};
  for (const auto& [dock, area] : places) {
    dock->setFloating(false);
    addDockWidget(area, dock);
    dock->show();
  }
  m_inspectorWanted = true;
  resizeDocks({m_explorerDock, m_inspectorDock}, {330, 300}, Qt::Horizontal);
  resizeDocks({m_queueDock}, {150}, Qt::Vertical);
  pageChanged();
}

void MainWindow::showTitle() {
  QStringList parts;
  if (const QString recipe = m_workbench->document()->title(); !recipe.isEmpty()) parts << recipe + QStringLiteral("[*]");
  for (const KnownModel& model : m_workbench->selection()->models())
    if (model.key == m_workbench->selection()->currentModel()) parts << model.name;
  if (const QString workspace = QFileInfo(m_workbench->workspacePath()).fileName(); !workspace.isEmpty()) parts << workspace;
  parts << tr("LLM-QBench Workbench");
  setWindowTitle(parts.join(QStringLiteral(" – ")));
  setWindowModified(m_workbench->document()->isModified());
}

void MainWindow::showPage(const QString& name) {
  if (const auto index = kPageNames.indexOf(name); index >= 0) m_pages->setCurrentIndex(int(index));
}

QString MainWindow::page() const { return kPageNames.value(m_pages->currentIndex()); }

bool MainWindow::hasInspector() const { return m_pages->currentIndex() == Layers || m_pages->currentIndex() == Accuracy; }

void MainWindow::pageChanged() {
  // There is nothing to inspect while a recipe is written; the room is better spent on it.
  m_switchingPage = true;
  m_glance = false;
  m_inspectorDock->setVisible(hasInspector() && m_inspectorWanted);
  m_switchingPage = false;
}

void MainWindow::tryDemo() { m_workbench->startDemo(); }

QStringList MainWindow::chosenRuns() const { return m_pages->currentIndex() == Runs ? m_runs->selectedRuns() : m_explorer->selectedRuns(); }

void MainWindow::compare(const QStringList& chosen) {
  if (chosen.isEmpty()) {
    m_notices->tell(NoticeBar::Info, tr("Choose the runs to compare in the list on the left: click one, then Ctrl+click others."));
    return;
  }
  m_workbench->showOnly(chosen);
  if (page() != QLatin1String("accuracy")) showPage(QStringLiteral("layers"));
}

void MainWindow::showLog(const QString& run) {
  const RunEntry* entry = m_workbench->selection()->find(run);
  if (!entry) return m_notices->tell(NoticeBar::Info, tr("Choose a run in the list on the left to see its log."));
  for (LogWindow* window : findChildren<LogWindow*>()) {
    if (window->run() != run || window->isHidden()) continue;
    window->raise();
    window->activateWindow();
    return;
  }
  (new LogWindow(m_workbench->background(), run, QString::fromStdString(entry->report->name), m_workbench->runFolder(run) / "log.txt", this))->show();
}

void MainWindow::exportRun(const QString& run, int job) {
  const Job* active = m_workbench->queue()->activeExportOf(run);
  if (job == 0 && active) job = active->id;
  for (ExportDialog* dialog : findChildren<ExportDialog*>()) {
    if (dialog->run() != run || dialog->isHidden()) continue;
    if (job != 0 && dialog->job() != job) dialog->follow(job);
    dialog->raise();
    dialog->activateWindow();
    return;
  }
  if (const QString obstacle = m_workbench->exportObstacle(run); !obstacle.isEmpty()) return m_notices->tell(NoticeBar::Info, obstacle);
  (new ExportDialog(m_workbench, run, job, this))->show();
}

void MainWindow::showExportObstacle() {
  const QString obstacle = m_workbench->exportObstacle(m_workbench->selection()->currentRun());
  m_export->setEnabled(obstacle.isEmpty());
  m_export->setToolTip(obstacle.isEmpty() ? tr("Write the chosen run as a checkpoint that inference engines load (%1)").arg(m_export->shortcut().toString(QKeySequence::NativeText)) : obstacle);
}

// A dialog that is open tells it itself.
void MainWindow::exportEnded(const Job& job) {
  if (job.state == JobState::Finished) statusBar()->showMessage(tr("%1 is written").arg(job.name), 15000);
  for (const ExportDialog* dialog : findChildren<ExportDialog*>())
    if (dialog->job() == job.id && !dialog->isHidden()) {
      if (!dialog->isActiveWindow() && !isActiveWindow()) QApplication::alert(this);
      return;
    }
  if (job.state == JobState::Failed)
    m_notices->tell(NoticeBar::Error, tr("%1 failed: %2").arg(job.name, job.error), {{tr("Show the export"), [this, run = job.runId, id = job.id] { exportRun(run, id); }}});
  if (job.state == JobState::Finished) {
    m_notices->tell(NoticeBar::Info, tr("%1 is written: %2").arg(job.name, QString::fromStdString(job.exported->path.string())),
                    {{tr("Show the export"), [this, run = job.runId, id = job.id] { exportRun(run, id); }},
                     {tr("Show in file manager"), [path = QString::fromStdString(job.exported->path.string())] { showInFileManager(path); }}});
    if (!isActiveWindow()) QApplication::alert(this);
  }
}

void MainWindow::restoreSession(const QStringList& paths, const QString& workspace) {
  restoreGeometry(m_settings->bytes(QStringLiteral("geometry")));
  restoreState(m_settings->bytes(QStringLiteral("state")), kStateVersion);
  m_inspectorWanted = m_settings->bytes(QStringLiteral("inspector")) != "0";
  for (QSplitter* splitter : findChildren<QSplitter*>())
    if (!splitter->objectName().isEmpty()) splitter->restoreState(m_settings->bytes(QStringLiteral("splitter/") + splitter->objectName()));
  m_runs->restoreState(m_settings->bytes(QStringLiteral("runs")));
  fillRecent();
  if (const QString text = m_settings->recipeText(); !text.isEmpty()) {
    m_workbench->document()->open(text, m_settings->recipePath(), tr("Last session"));
    if (m_settings->recipeModified()) m_workbench->document()->markSaved(m_settings->recipePath(), {});  // the file says something else
    m_workbench->document()->forgetHistory();
  }
  m_workbench->openWorkspace(workspace.isEmpty() ? m_settings->workspace() : workspace, m_settings->shownRuns());
  for (const QString& model : m_settings->models()) m_workbench->openModel(model, false);
  const bool first = m_settings->recent().isEmpty();
  m_pages->setCurrentIndex(first ? Welcome : std::clamp(m_settings->page(), 0, m_pages->count() - 1));
  for (const QString& path : paths) m_workbench->openPath(path);
  pageChanged();
  m_workbench->followWorkspace(1500);
  m_restored = true;
  // A program that is killed finds its session again, but for the last seconds.
  auto* autosave = new QTimer(this);
  autosave->setSingleShot(true);
  autosave->setInterval(2000);
  connect(autosave, &QTimer::timeout, this, &MainWindow::saveSession);
  const auto soon = [autosave] { autosave->start(); };
  connect(m_workbench->document(), &RecipeDocument::textChanged, autosave, soon);
  connect(m_workbench->selection(), &Selection::runsChanged, autosave, soon);
  connect(m_workbench->models(), &QAbstractItemModel::rowsInserted, autosave, soon);
  connect(m_workbench->models(), &QAbstractItemModel::modelReset, autosave, soon);
  connect(m_pages, &QTabWidget::currentChanged, autosave, soon);
}

void MainWindow::saveSession() {
  if (!m_restored) return;
  m_settings->setBytes(QStringLiteral("geometry"), saveGeometry());
  m_settings->setBytes(QStringLiteral("state"), saveState(kStateVersion));
  m_settings->setBytes(QStringLiteral("inspector"), m_inspectorWanted ? "1" : "0");
  for (QSplitter* splitter : findChildren<QSplitter*>())
    if (!splitter->objectName().isEmpty()) m_settings->setBytes(QStringLiteral("splitter/") + splitter->objectName(), splitter->saveState());
  m_settings->setBytes(QStringLiteral("runs"), m_runs->saveState());
  QStringList models, shown;
  for (const ModelPtr& model : m_workbench->models()->models()) models << QString::fromStdString(model->path.string());
  if (const QString current = m_workbench->selection()->currentRun(); !current.isEmpty() && m_workbench->selection()->find(current)->shown) shown << current;
  for (const RunEntry& run : m_workbench->selection()->shownRuns())
    if (!shown.contains(run.id)) shown << run.id;
  m_settings->setModels(models);
  m_settings->setShownRuns(shown);
  m_settings->setRecipe(m_workbench->document()->text(), m_workbench->document()->path(), m_workbench->document()->isModified());
  m_settings->setPage(m_pages->currentIndex());
  m_settings->sync();
}

void MainWindow::closeEvent(QCloseEvent* event) {
  RunQueue* queue = m_workbench->queue();
  if (!queue->isBusy()) {
    saveSession();
    event->accept();
    return;
  }
  event->ignore();
  if (m_closing || m_question) return;
  if (!queue->isBusyWithOurs()) {  // what other programs do goes on without us
    m_closing = true;
    queue->leaveAlone();
    return;
  }
  const auto ours = [&](JobKind kind) {
    return std::any_of(queue->jobs().begin(), queue->jobs().end(), [kind](const Job& job) { return job.kind == kind && job.isActive() && job.owner.isEmpty(); });
  };
  const auto waiting = std::count_if(queue->jobs().begin(), queue->jobs().end(), [](const Job& job) { return job.kind == JobKind::Run && job.state == JobState::Queued && job.ours; });
  const bool runs = ours(JobKind::Run), exports = ours(JobKind::Export), surveys = ours(JobKind::Survey);
  auto* question = new QMessageBox(QMessageBox::Question, runs ? (exports ? tr("Runs and an export are going on") : tr("Runs are going on")) : exports ? tr("An export is going on") : tr("A survey is going on"),
                                   runs ? tr("Close the window and let the runs go on?") : exports ? tr("Stop the export that is going on and close?") : tr("Stop the survey that is going on and close?"), QMessageBox::NoButton, this);
  QStringList kept;
  if (runs) kept << tr("Each run has a process of its own and needs no window.");
  if (runs && waiting > 0) kept << (waiting == 1 ? tr("The one that waits is carried out afterwards.") : tr("The %1 that wait are carried out afterwards, one after the other.").arg(waiting));
  if (runs) kept << tr("Runs that are stopped end after the block at work; start them again next time, and they go on from there.");
  if (exports) kept << tr("Nothing is left of an export that is stopped.");
  if (surveys) kept << tr("A survey of sensitivity ends with the window; started again, it goes on where it was.");
  question->setInformativeText(kept.join(QLatin1Char('\n')));
  QAbstractButton* leave = runs ? question->addButton(exports ? tr("Let runs go on, stop the export") : tr("Let them go on"), QMessageBox::AcceptRole) : nullptr;
  QAbstractButton* stop = question->addButton(runs ? tr("Stop after their block") : tr("Stop and close"), runs ? QMessageBox::DestructiveRole : QMessageBox::AcceptRole);
  QPushButton* stay = question->addButton(tr("Keep open"), QMessageBox::RejectRole);
  question->setDefaultButton(stay);
  question->setEscapeButton(stay);
  question->setAttribute(Qt::WA_DeleteOnClose);
  m_question = question;
  connect(question, &QMessageBox::buttonClicked, this, [this, leave, stop](QAbstractButton* pressed) {
    if (pressed != stop && pressed != leave) return;
    RunQueue* jobs = m_workbench->queue();
    m_closing = true;
    if (pressed == stop) {
      statusBar()->showMessage(tr("Stopping…"));
      jobs->stopAfterBlocks();
    } else {
      m_workbench->leaveRunsAlone();
    }
    if (!jobs->isBusy()) QTimer::singleShot(0, this, &QWidget::close);
  });
  question->open();
}

void MainWindow::dragEnterEvent(QDragEnterEvent* event) {
  const auto urls = event->mimeData()->urls();
  if (std::any_of(urls.begin(), urls.end(), [](const QUrl& url) { return url.isLocalFile(); })) event->acceptProposedAction();
}

void MainWindow::dropEvent(QDropEvent* event) {
  for (const QUrl& url : event->mimeData()->urls())
    if (url.isLocalFile()) m_workbench->openPath(url.toLocalFile());
  event->acceptProposedAction();
}

QStringList MainWindow::exportPictures(const QString& folder) {
  if (!QDir().mkpath(folder)) throw ResourceError("cannot make the folder " + folder.toStdString());
  for (QDockWidget* dock : {m_explorerDock, m_queueDock}) dock->hide();
  m_inspectorWanted = false;
  resize(1200, 900);
  QStringList paths;
  for (const auto& [page, name] : {std::pair(static_cast<QWidget*>(m_layers), "layers"), std::pair(m_accuracy, "accuracy")}) {
    m_pages->setCurrentWidget(page);
    // Pages draw what changed a moment later; let them.
    QEventLoop wait;
    QTimer::singleShot(600, &wait, &QEventLoop::quit);
    wait.exec();
    const QString path = QDir(folder).filePath(QLatin1String(name) + QStringLiteral(".png"));
    if (!page->grab().save(path)) throw ResourceError("cannot write " + path.toStdString());
    paths << path;
  }
  return paths;
}

}  // namespace qb::views
