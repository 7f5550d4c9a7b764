#include "views/pages/QueuePanel.h"

#include <QFontDatabase>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QLabel>
#include <QMenu>
#include <QPlainTextEdit>
#include <QSplitter>
#include <QTableView>
#include <QToolButton>
#include <QVBoxLayout>

#include "views/Icons.h"
#include "views/models/JobList.h"
#include "views/pages/Delegates.h"

namespace qb::views {
namespace {

// Pause or resume, and stop or remove, of one job.
class JobButtons : public QWidget {
 public:
  JobButtons(RunQueue* queue, int id, QWidget* parent) : QWidget(parent), m_queue(queue), m_id(id) {
    auto* row = new QHBoxLayout(this);
    row->setContentsMargins(2, 0, 2, 0);
    row->setSpacing(0);
    m_go = button(row);
    m_end = button(row);
    row->addStretch(1);
    connect(m_go, &QToolButton::clicked, this, [this] {
      const Job* job = m_queue->job(m_id);
      if (!job) return;
      if (job->canPause())
        m_queue->pause(m_id);
      else
        m_queue->resume(m_id);
    });
    connect(m_end, &QToolButton::clicked, this, [this] {
      const Job* job = m_queue->job(m_id);
      if (!job) return;
      if (job->canCancel())
        m_queue->cancel(m_id);
      else
        QMetaObject::invokeMethod(m_queue, [queue = m_queue, id = m_id] { queue->remove(id); }, Qt::QueuedConnection);
    });
    connect(queue, &RunQueue::changed, this, [this](int changed) {
      if (m_queue->rowOf(m_id) == changed) dress();
    });
    dress();
  }

 private:
  static QToolButton* button(QHBoxLayout* row) {
    auto* made = new QToolButton;
    made->setAutoRaise(true);
    made->setIconSize({14, 14});
    row->addWidget(made);
    return made;
  }
  static void name(QToolButton* button, const QString& iconName, const QString& text) {
    if (button->toolTip() == text) return;
    button->setIcon(icon(iconName));
    button->setToolTip(text);
    button->setAccessibleName(text);
  }
  void dress() {
    const Job* job = m_queue->job(m_id);
    if (!job || job->state == m_dressed) return;
    m_dressed = job->state;
    const bool exports = job->kind == JobKind::Export;
    const bool again = exports && job->canResume() && !job->isActive() && !job->isWaiting();
    if (job->canPause())
      name(m_go, QStringLiteral("pause"), QueuePanel::tr("Pause %1").arg(job->name));
    else
      name(m_go, QStringLiteral("resume"), (again ? QueuePanel::tr("Start %1 again") : QueuePanel::tr("Resume %1")).arg(job->name));
    m_go->setEnabled(job->canPause() || job->canResume());
    if (job->canCancel() || job->state == JobState::Stopping)
      name(m_end, QStringLiteral("stop"), (exports ? QueuePanel::tr("Stop %1; nothing is left of it") : QueuePanel::tr("Stop %1; it can be resumed")).arg(job->name));
    else
      name(m_end, QStringLiteral("remove"),
           (job->kind != JobKind::Run ? QueuePanel::tr("Take %1 off this list; what was written stays") : QueuePanel::tr("Take %1 off this list; the run stays")).arg(job->name));
    m_end->setEnabled(job->state != JobState::Stopping);
  }

  RunQueue* m_queue;
  int m_id;
  QToolButton *m_go, *m_end;
  JobState m_dressed = JobState(-1);
};

}  // namespace

QueuePanel::QueuePanel(RunQueue* queue, QWidget* parent) : QWidget(parent), m_queue(queue), m_jobs(new JobList(queue, this)) {
  m_table = new QTableView;
  m_table->setModel(m_jobs);
  m_table->setItemDelegateForColumn(JobList::Done, new ProgressDelegate(m_table));
  m_table->setItemDelegateForColumn(JobList::Memory, new SparklineDelegate(m_table));
  m_table->setSelectionBehavior(QAbstractItemView::SelectRows);
  m_table->setSelectionMode(QAbstractItemView::SingleSelection);
  m_table->setEditTriggers(QAbstractItemView::NoEditTriggers);
  m_table->setShowGrid(false);
  m_table->setWordWrap(false);
  m_table->setTabKeyNavigation(false);
  m_table->setAlternatingRowColors(true);
  m_table->setFrameShape(QFrame::NoFrame);
  m_table->setAccessibleName(tr("Queue of runs"));
  m_table->setContextMenuPolicy(Qt::CustomContextMenu);
  m_table->verticalHeader()->hide();
  m_table->verticalHeader()->setDefaultSectionSize(m_table->fontMetrics().height() + 10);
  QHeaderView* header = m_table->horizontalHeader();
  header->setHighlightSections(false);
  header->setStretchLastSection(false);
  const int n = m_table->fontMetrics().horizontalAdvance(QLatin1Char('n'));
  header->setMinimumSectionSize(n * 4);
  // Fixed widths: figures that change must not make the columns dance.
  const QList<QPair<int, int>> widths{{JobList::State, 9}, {JobList::Stage, 19}, {JobList::Block, 8}, {JobList::Done, 14}, {JobList::Eta, 14}, {JobList::Memory, 15}, {JobList::Actions, 7}};
  for (const auto& [column, letters] : widths) header->resizeSection(column, n * letters);
  // What is left goes to the two texts.
  for (const int column : {JobList::Name, JobList::Stage}) header->setSectionResizeMode(column, QHeaderView::Stretch);
  header->setSectionResizeMode(JobList::Actions, QHeaderView::Fixed);

  m_none = new QLabel(tr("Nothing in the queue."));
  m_none->setForegroundRole(QPalette::PlaceholderText);
  m_none->setMargin(10);
  m_none->setAlignment(Qt::AlignTop | Qt::AlignLeft);

  m_log = new QPlainTextEdit;
  m_log->setReadOnly(true);
  m_log->setMaximumBlockCount(5000);
  m_log->setWordWrapMode(QTextOption::WrapAtWordBoundaryOrAnywhere);
  m_log->setFrameShape(QFrame::NoFrame);
  m_log->setTabChangesFocus(true);
  m_log->setAccessibleName(tr("Log of the chosen job"));
  m_log->setPlaceholderText(tr("The log of the chosen job"));
  QFont font = QFontDatabase::systemFont(QFontDatabase::FixedFont);
  font.setPointSizeF(this->font().pointSizeF() * 0.95);
  m_log->setFont(font);

  auto* left = new QWidget;
  auto* column = new QVBoxLayout(left);
  column->setContentsMargins(0, 0, 0, 0);
  column->addWidget(m_none);
  column->addWidget(m_table);
  auto* splitter = new QSplitter(Qt::Horizontal);
  splitter->setObjectName(QStringLiteral("queueSplitter"));
  splitter->addWidget(left);
  splitter->addWidget(m_log);
  splitter->setStretchFactor(0, 3);
  splitter->setStretchFactor(1, 1);
  splitter->setSizes({860, 340});
  auto* all = new QVBoxLayout(this);
  all->setContentsMargins(0, 0, 0, 0);
  all->addWidget(splitter);

  connect(m_jobs, &QAbstractItemModel::rowsInserted, this, [this](const QModelIndex&, int first, int last) {
    for (int row = first; row <= last; ++row) addButtons(row);
    showEmpty();
    if (!m_table->currentIndex().isValid()) m_table->selectRow(first);
  });
  connect(m_jobs, &QAbstractItemModel::rowsRemoved, this, &QueuePanel::showEmpty);
  connect(m_table->selectionModel(), &QItemSelectionModel::currentRowChanged, this, &QueuePanel::showLog);
  connect(m_table, &QWidget::customContextMenuRequested, this, &QueuePanel::menu);
  connect(m_table, &QTableView::activated, this, [this](const QModelIndex& index) {
    const int id = index.data(JobList::IdRole).toInt();
    if (const Job* job = m_queue->job(id); job && job->kind == JobKind::Export) Q_EMIT exportRequested(id);
  });
  connect(queue, &RunQueue::logged, this, [this](int id, const QStringList& lines) {
    if (id == currentJob()) m_log->appendPlainText(lines.join(QLatin1Char('\n')));
  });
  // A job that begins is what one wants to follow, unless another running one was chosen.
  connect(queue, &RunQueue::changed, this, [this](int row) {
    const Job& job = m_queue->jobs()[row];
    const Job* chosen = m_queue->job(currentJob());
    if (job.isActive() && (!chosen || !chosen->isActive()) && !m_table->hasFocus()) m_table->selectRow(row);
  });
  showEmpty();
}

int QueuePanel::currentJob() const { return m_table->currentIndex().data(JobList::IdRole).toInt(); }

void QueuePanel::addButtons(int row) {
  const QModelIndex index = m_jobs->index(row, JobList::Actions);
  m_table->setIndexWidget(index, new JobButtons(m_queue, index.data(JobList::IdRole).toInt(), m_table));
}

void QueuePanel::showLog() {
  const Job* job = m_queue->job(currentJob());
  m_log->setPlainText(job ? job->log.join(QLatin1Char('\n')) : QString());
  m_log->moveCursor(QTextCursor::End);
}

void QueuePanel::showEmpty() {
  const bool any = m_jobs->rowCount() > 0;
  m_none->setVisible(!any);
  m_table->setVisible(any);
  if (!any) m_log->clear();
}

void QueuePanel::menu(const QPoint& place) {
  const int id = m_table->indexAt(place).siblingAtColumn(0).data(JobList::IdRole).toInt();
  QMenu menu(this);
  if (const Job* job = m_queue->job(id); job && job->kind == JobKind::Export) {
    menu.addAction(icon(QStringLiteral("export")), tr("Show the export"), this, [this, id] { Q_EMIT exportRequested(id); });
    menu.addSeparator();
  }
  if (const Job* job = m_queue->job(id)) {
    const auto add = [&](const QString& iconName, const QString& text, bool enabled, auto action) { menu.addAction(icon(iconName), text, this, action)->setEnabled(enabled); };
    add(QStringLiteral("pause"), tr("Pause"), job->canPause(), [this, id] { m_queue->pause(id); });
    add(QStringLiteral("resume"), tr("Resume"), job->canResume(), [this, id] { m_queue->resume(id); });
    add(QStringLiteral("stop"), tr("Stop"), job->canCancel(), [this, id] { m_queue->cancel(id); });
    menu.addSeparator();
    add(QStringLiteral("up"), tr("Earlier"), job->isWaiting(), [this, id] { m_queue->move(id, -1); });
    add(QStringLiteral("down"), tr("Later"), job->isWaiting(), [this, id] { m_queue->move(id, 1); });
    menu.addSeparator();
  }
  menu.addAction(tr("Take finished jobs off the list"), m_queue, &RunQueue::removeFinished);
  menu.exec(m_table->viewport()->mapToGlobal(place));
}

}  // namespace qb::views
