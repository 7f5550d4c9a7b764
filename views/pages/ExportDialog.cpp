#include "views/pages/ExportDialog.h"

#include <QAbstractButton>
#include <QDesktopServices>
#include <QDir>
#include <QFileDialog>
#include <QFileInfo>
#include <QLineEdit>
#include <QPointer>
#include <QProgressBar>
#include <QPushButton>
#include <QScreen>
#include <QStackedWidget>
#include <QUrl>
#include <QVBoxLayout>
#include <algorithm>

#include "core/exporting/formats.h"
#include "views/Icons.h"
#include "views/Workbench.h"
#include "views/models/Format.h"
#include "views/pages/ChoiceList.h"
#include "views/pages/ExportOffers.h"
#include "views/pages/ExportResultView.h"
#include "views/pages/NoticeBar.h"

namespace qb::views {
namespace {

QString text(const std::string& value) { return QString::fromStdString(value); }

std::filesystem::path native(const QString& path) { return std::filesystem::path(path.toStdString()).lexically_normal(); }

QString typedPath(const QString& typed) {
  QString path = typed.trimmed();
  if (path == QLatin1String("~") || path.startsWith(QLatin1String("~/"))) path.replace(0, 1, QDir::homePath());
  while (path.size() > 1 && path.endsWith(QLatin1Char('/'))) path.chop(1);
  return path;
}

QLabel* faint(QLabel* label) {
  label->setForegroundRole(QPalette::PlaceholderText);
  return label;
}

}  // namespace

void showInFileManager(const QString& path) {
  const QFileInfo info(path);
  QDesktopServices::openUrl(QUrl::fromLocalFile(info.isDir() ? info.absoluteFilePath() : info.absolutePath()));
}

ExportDialog::ExportDialog(Workbench* workbench, const QString& run, int job, QWidget* parent) : QDialog(parent), m_workbench(workbench), m_run(run) {
  setAttribute(Qt::WA_DeleteOnClose);
  setObjectName(QStringLiteral("exportDialog"));
  const RunEntry* entry = workbench->selection()->find(run);
  m_runName = entry ? text(entry->report->name) : run;
  setWindowTitle(tr("Export %1").arg(m_runName));
  m_folder = workbench->exportFolder();

  m_title = new QLabel(tr("Export %1").arg(m_runName));
  m_title->setTextFormat(Qt::PlainText);
  QFont font = m_title->font();
  font.setPointSizeF(font.pointSizeF() * 1.3);
  font.setBold(true);
  m_title->setFont(font);
  m_facts = faint(new QLabel);
  m_facts->setWordWrap(true);
  m_facts->setTextFormat(Qt::PlainText);
  m_notices = new NoticeBar;
  m_pages = new QStackedWidget;
  m_pages->addWidget(makeWaiting());
  m_pages->addWidget(makeChoosing());
  m_pages->addWidget(makeWorking());
  m_done = new ExportResultView;
  m_pages->addWidget(m_done);
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(14, 12, 14, 12);
  column->addWidget(m_title);
  column->addWidget(m_facts);
  column->addSpacing(4);
  column->addWidget(m_notices);
  column->addWidget(m_pages, 1);
  buildButtons(column);
  if (entry) {
    QStringList facts{text(entry->report->model_name), text(entry->report->scheme), text(entry->report->pipeline)};
    if (const EvaluationResult* result = mainPerplexity(*entry->report)) facts << evaluationText(*result);
    facts.removeAll(QString());
    m_facts->setText(facts.join(QStringLiteral(" · ")));
  }
  const QSize room = screen()->availableSize() - QSize(40, 80);
  resize(QSize(fontMetrics().horizontalAdvance(QLatin1Char('n')) * 126, fontMetrics().height() * 48).boundedTo(room));

  RunQueue* queue = workbench->queue();
  connect(queue, &RunQueue::changed, this, [this, queue](int row) {
    if (queue->jobs()[row].id == m_job) showJob();
  });
  // Its run, or the workspace that it is in, has gone.
  const auto leave = [this] {
    if (!m_workbench->selection()->find(m_run) && !m_workbench->queue()->activeExportOf(m_run)) close();
  };
  connect(workbench->selection(), &Selection::runsChanged, this, leave, Qt::QueuedConnection);
  connect(workbench, &Workbench::workspaceChanged, this, leave, Qt::QueuedConnection);

  turnTo(Waiting);
  survey();
  if (job > 0) follow(job);
}

ExportDialog::~ExportDialog() {
  for (const char* what : {"survey", "suggest", "check"}) m_workbench->background()->cancel(slot(what));
}

QString ExportDialog::slot(const char* what) const { return QStringLiteral("export-%1:%2").arg(QLatin1String(what), m_run); }

template <class Work, class Then>
void ExportDialog::ask(const char* what, Work work, Then then) {
  m_workbench->background()->run(
      slot(what), std::move(work),
      [dialog = QPointer<ExportDialog>(this), then](const auto& answer) {
        if (dialog) then(answer);
      },
      [dialog = QPointer<ExportDialog>(this)](const QString& error) {
        if (dialog) dialog->m_notices->tell(NoticeBar::Error, error);
      });
}

QWidget* ExportDialog::makeWaiting() {
  auto* page = new QWidget;
  auto* column = new QVBoxLayout(page);
  m_waiting = new QLabel(tr("Looking at what formats and engines take this run…"));
  m_waiting->setAlignment(Qt::AlignCenter);
  m_waiting->setWordWrap(true);
  m_waitingBar = new QProgressBar;
  m_waitingBar->setRange(0, 0);
  m_waitingBar->setMaximumWidth(fontMetrics().horizontalAdvance(QLatin1Char('n')) * 40);
  m_waitingBar->setAccessibleName(m_waiting->text());
  column->addStretch(1);
  column->addWidget(m_waiting);
  column->addWidget(m_waitingBar, 0, Qt::AlignHCenter);
  column->addStretch(2);
  return page;
}

QWidget* ExportDialog::makeChoosing() {
  auto* page = new QWidget;
  auto* column = new QVBoxLayout(page);
  column->setContentsMargins(0, 0, 0, 0);
  const auto list = [](const QString& title, const QString& name, ChoiceList** made) {
    *made = new ChoiceList(name);
    auto* label = new QLabel(title);
    label->setBuddy(*made);
    auto* box = new QVBoxLayout;
    box->setSpacing(3);
    box->addWidget(label);
    box->addWidget(*made, 1);
    return box;
  };
  auto* lists = new QHBoxLayout;
  lists->setSpacing(10);
  lists->addLayout(list(tr("&Format"), tr("Format of the checkpoint"), &m_formats), 1);
  lists->addLayout(list(tr("&Engine that shall load it"), tr("Engine that shall load the checkpoint"), &m_engines), 1);
  column->addLayout(lists, 1);
  connect(m_formats, &ChoiceList::chosen, this, [this] {
    fillEngines();
    if (!m_named) suggest();
    refresh();
  });
  connect(m_engines, &ChoiceList::chosen, this, &ExportDialog::refresh);

  m_output = new QLineEdit;
  m_output->setAccessibleName(tr("Folder or file to make"));
  auto* label = new QLabel(tr("F&older or file to make"));
  label->setBuddy(m_output);
  auto* browse = new QPushButton(icon(QStringLiteral("open")), tr("&Browse…"));
  browse->setToolTip(tr("Choose the folder that the checkpoint is put into"));
  connect(browse, &QPushButton::clicked, this, &ExportDialog::browse);
  connect(m_output, &QLineEdit::textEdited, this, [this] { m_named = !m_output->text().trimmed().isEmpty(); });
  connect(m_output, &QLineEdit::textChanged, this, &ExportDialog::check);
  auto* line = new QHBoxLayout;
  line->addWidget(label);
  line->addWidget(m_output, 1);
  line->addWidget(browse);
  column->addSpacing(4);
  column->addLayout(line);
  m_problem = new ReasonLabel({}, ReasonLabel::Error);
  m_problem->hide();
  column->addWidget(m_problem);
  m_room = faint(new QLabel);
  m_room->setWordWrap(true);
  column->addWidget(m_room);
  return page;
}

QWidget* ExportDialog::makeWorking() {
  auto* page = new QWidget;
  auto* column = new QVBoxLayout(page);
  m_phase = new QLabel;
  m_progress = new QProgressBar;
  m_progress->setRange(0, 1000);
  m_progress->setAccessibleName(tr("Progress of the export"));
  m_time = new QLabel;
  m_target = faint(new QLabel);
  m_target->setWordWrap(true);
  m_target->setTextInteractionFlags(Qt::TextSelectableByMouse | Qt::TextSelectableByKeyboard);
  auto* hint = faint(new QLabel(tr("This window may be closed: the export goes on, and the queue shows it. The checkpoint gets its name when it is whole, has been read back and is equal to the run.")));
  hint->setWordWrap(true);
  column->addStretch(1);
  for (QWidget* widget : {static_cast<QWidget*>(m_phase), static_cast<QWidget*>(m_progress), static_cast<QWidget*>(m_time)}) column->addWidget(widget);
  column->addSpacing(10);
  column->addWidget(m_target);
  column->addWidget(hint);
  column->addStretch(2);
  return page;
}

void ExportDialog::buildButtons(QVBoxLayout* column) {
  const auto make = [this](const QString& iconName, const QString& text, auto act) {
    auto* button = iconName.isEmpty() ? new QPushButton(text) : new QPushButton(icon(iconName), text);
    connect(button, &QPushButton::clicked, this, act);
    return button;
  };
  m_retry = make(QStringLiteral("resume"), tr("&Look again"), [this] { survey(); });
  m_again = make(QStringLiteral("export"), tr("Another &export…"), [this] {
    m_job = 0;
    m_named = false;
    turnTo(m_survey ? Choosing : Waiting);
    suggest();
  });
  m_reveal = make(QStringLiteral("open"), tr("Show in file &manager"), [this] { showInFileManager(m_done->path()); });
  m_start = make(QStringLiteral("start"), tr("&Start export"), [this] { start(); });
  m_start->setDefault(true);
  m_stop = make(QStringLiteral("stop"), tr("S&top"), [this] { m_workbench->queue()->cancel(m_job); });
  m_stop->setToolTip(tr("Stop the export; nothing is left of it on disk"));
  m_close = make({}, tr("Close"), [this] { close(); });
  auto* row = new QHBoxLayout;
  row->addWidget(m_again);
  row->addStretch(1);
  for (QPushButton* button : {m_retry, m_reveal, m_stop, m_start, m_close}) row->addWidget(button);
  column->addSpacing(4);
  column->addLayout(row);
}

void ExportDialog::turnTo(Page page) {
  m_pages->setCurrentIndex(page);
  m_start->setVisible(page == Choosing);
  m_stop->setVisible(page == Working);
  m_reveal->setVisible(page == Done);
  m_again->setVisible(page == Done);
  m_retry->hide();
  refresh();
}

// --- What can be chosen ---

void ExportDialog::survey() {
  m_waiting->setText(tr("Looking at what formats and engines take this run…"));
  m_waitingBar->show();
  m_retry->hide();
  m_notices->clear();
  m_workbench->background()->run(
      slot("survey"),
      [survey = m_workbench->services().surveyExports, folder = m_workbench->runFolder(m_run)](const std::stop_token& stop) {
        Control control;
        control.stop = stop;
        return survey(folder, control);
      },
      [dialog = QPointer<ExportDialog>(this)](ExportSurvey&& found) {
        if (!dialog) return;
        dialog->m_survey = std::move(found);
        dialog->fillFormats();
        if (dialog->m_result) dialog->m_done->setResult(dialog->m_result, dialog->m_made, dialog->m_survey);  // engines to serve it with
        if (dialog->m_pages->currentIndex() == Waiting) dialog->turnTo(Choosing);
      },
      [dialog = QPointer<ExportDialog>(this)](const QString& error) {
        if (!dialog) return;
        dialog->m_waitingBar->hide();
        dialog->m_waiting->setText(tr("This run cannot be exported."));
        dialog->m_notices->tell(NoticeBar::Error, error);
        dialog->m_retry->setVisible(dialog->m_pages->currentIndex() == Waiting);
      });
}

void ExportDialog::fillFormats() {
  const Choices choices = formatChoices(*m_survey);
  m_formats->setChoices(choices.all, choices.first);
  fillEngines();
  if (!m_named) suggest();
  if (choices.first.isEmpty()) m_notices->tell(NoticeBar::Warning, tr("No format takes this run; each says why below."));
  if (QAbstractButton* button = m_formats->button(choices.first); button && isVisible() && !m_output->hasFocus()) button->setFocus();
  refresh();
}

const FormatOffer* ExportDialog::offer() const {
  const Choice* chosen = m_formats->current();
  if (!m_survey || !chosen) return nullptr;
  for (const FormatOffer& offer : m_survey->formats)
    if (text(offer.format) == chosen->key) return &offer;
  return nullptr;
}

void ExportDialog::fillEngines() {
  const FormatOffer* chosen = offer();
  const Choices choices = chosen ? engineChoices(*chosen, m_engines->current() ? m_engines->current()->key : QString()) : Choices();
  m_engines->setChoices(choices.all, choices.first);
}

// --- Where it goes ---

std::vector<std::filesystem::path> ExportDialog::promised() const {
  std::vector<std::filesystem::path> outputs;
  for (const Job& job : m_workbench->queue()->jobs())
    if (job.kind == JobKind::Export && (job.isActive() || job.isWaiting())) outputs.push_back(job.wanted.output);
  return outputs;
}

void ExportDialog::suggest() {
  const FormatOffer* chosen = offer();
  if (!chosen) return;
  ask("suggest",
      [folder = native(m_folder), report = m_survey->report, format = chosen->format, taken = promised()](const std::stop_token&) {
        return text(suggested_output(folder, report, format, taken).string());
      },
      [this](const QString& path) {
        if (!m_named) m_output->setText(path);
        check();  // the same path may have been taken or freed since
      });
}

void ExportDialog::check() {
  const QString path = typedPath(m_output->text());
  m_checked.clear();
  refresh();
  if (!QDir::isAbsolutePath(path)) {
    m_check = {path.isEmpty() ? tr("Name the folder or file to make.").toStdString() : tr("%1: name the whole path, such as %2").arg(path, QDir(m_folder).filePath(path)).toStdString(), 0};
    m_checked = path.isNull() ? QStringLiteral("") : path;
    return refresh();
  }
  const std::string format = offer() ? offer()->format : std::string();
  ask("check", [path, format](const std::stop_token&) { return check_output(native(path), format); },
      [this, path](const OutputCheck& check) {
        if (path != typedPath(m_output->text())) return;
        m_checked = path;
        m_check = check;
        refresh();
      });
}

void ExportDialog::browse() {
  auto* dialog = new QFileDialog(this, tr("Folder to put the checkpoint into"), m_folder);
  dialog->setFileMode(QFileDialog::Directory);
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  connect(dialog, &QFileDialog::fileSelected, this, [this](const QString& folder) {
    m_folder = folder;
    m_named = false;
    suggest();
  });
  dialog->open();
}

// What stands in the way now is told below the folder, and on the button.
void ExportDialog::refresh() {
  const FormatOffer* chosen = offer();
  const bool checked = !m_checked.isNull() && m_checked == typedPath(m_output->text());
  QString problem, room;
  if (chosen) {
    room = tr("Takes %1").arg(exportSizeText(chosen->bytes, m_survey->source_bytes));
    if (checked && m_check.free_bytes > 0) room += tr(" · %1 are free there").arg(formatBytes(double(m_check.free_bytes)));
    if (checked) problem = text(m_check.obstacle);
    const auto taken = promised();
    if (checked && problem.isEmpty() && std::find(taken.begin(), taken.end(), native(m_checked)) != taken.end()) problem = tr("%1: another export is about to make it").arg(m_checked);
    if (checked && problem.isEmpty() && m_check.free_bytes > 0 && m_check.free_bytes < chosen->bytes)
      problem = tr("There is not enough room: %1 are needed, %2 are free.").arg(formatBytes(double(chosen->bytes)), formatBytes(double(m_check.free_bytes)));
  }
  m_room->setText(room);
  m_problem->setText(problem);
  m_problem->setVisible(!problem.isEmpty());
  m_start->setEnabled(chosen && checked && problem.isEmpty());
  m_start->setToolTip(!chosen ? tr("No format takes this run") : problem.isEmpty() ? tr("Write the checkpoint, read it back, compare it with the run") : problem);
}

// --- The work ---

void ExportDialog::start() {
  const FormatOffer* chosen = offer();
  if (!chosen || !m_start->isEnabled()) return;
  ExportOptions wanted;
  wanted.format = chosen->format;
  if (const Choice* engine = m_engines->current()) wanted.engine = engine->key.toStdString();
  wanted.output = native(typedPath(m_output->text()));
  m_notices->clear();
  follow(m_workbench->exportRun(m_run, wanted));
}

void ExportDialog::follow(int job) {
  m_job = job;
  m_seen = JobState::Queued;
  showJob();
}

void ExportDialog::showJob() {
  const Job* job = m_workbench->queue()->job(m_job);
  if (!job) return;
  const bool news = job->state != m_seen;
  m_seen = job->state;
  if (job->isActive() || job->isWaiting()) {
    showProgress(*job);
    if (m_pages->currentIndex() != Working) {
      m_notices->clear();
      turnTo(Working);
      m_stop->setFocus();
    }
    return;
  }
  if (!news) return;
  if (job->state == JobState::Finished) {
    m_result = job->exported;
    m_made = job->wanted;
    m_done->setResult(m_result, m_made, m_survey);
    m_notices->clear();
    turnTo(Done);
    m_reveal->setFocus();
    return;
  }
  if (job->state == JobState::Failed) m_notices->tell(NoticeBar::Error, job->error);
  if (job->state == JobState::Cancelled) m_notices->tell(NoticeBar::Info, tr("The export was stopped. Nothing is left of it on disk."));
  turnTo(m_survey ? Choosing : Waiting);
  if (m_output->text().isEmpty()) {
    m_named = true;
    m_output->setText(text(job->wanted.output.string()));
  }
  check();
}

void ExportDialog::showProgress(const Job& job) {
  const Progress& progress = job.progress;
  QString phase = tr("Opening the run…");
  if (progress.stage == "write") phase = tr("Writing the tensors…");
  if (progress.stage == "read back" || progress.stage == "done") phase = tr("Reading the checkpoint back and comparing it with the run…");
  if (job.state == JobState::Queued) phase = tr("Waiting for another export to end");
  if (job.state == JobState::Held || job.state == JobState::Paused) phase = tr("Paused: the queue resumes it");
  if (job.state == JobState::Stopping) phase = tr("Stopping…");
  m_phase->setText(phase);
  m_progress->setValue(int(progress.fraction * 1000));
  QStringList time;
  if (job.state == JobState::Running && progress.eta_s >= 0) time << tr("%1 left").arg(formatDuration(progress.eta_s));
  if (progress.elapsed_s > 0) time << tr("%1 so far").arg(formatDuration(progress.elapsed_s));
  m_time->setText(time.join(QStringLiteral(" · ")));
  const FormatInfo* format = find_format(job.wanted.format);
  m_target->setText(tr("%1 in %2").arg(format ? text(format->title) : text(job.wanted.format), text(job.wanted.output.string())));
  m_stop->setEnabled(job.canCancel());
}

}  // namespace qb::views
