#include "views/models/JobList.h"

#include "views/models/Format.h"

namespace qb::views {

QString stageText(const Progress& progress) {
  const QString phase = QString::fromStdString(progress.phase);
  const QString known = phase == QLatin1String("load")        ? JobList::tr("Load")
                        : phase == QLatin1String("calibrate") ? JobList::tr("Calibrate")
                        : phase == QLatin1String("quantize")  ? JobList::tr("Quantize")
                        : phase == QLatin1String("evaluate")  ? JobList::tr("Evaluate")
                        : phase == QLatin1String("save")      ? JobList::tr("Save")
                        : phase == QLatin1String("export")    ? JobList::tr("Export")
                                                              : phase;
  QString stage = QString::fromStdString(progress.stage);
  if (stage == QLatin1String("write")) stage = JobList::tr("write");
  if (stage == QLatin1String("read back")) stage = JobList::tr("read back");
  return stage.isEmpty() ? known : known.isEmpty() ? stage : known + QStringLiteral(" · ") + stage;
}

JobList::JobList(RunQueue* queue, QObject* parent) : QAbstractTableModel(parent), m_queue(queue) {
  connect(queue, &RunQueue::aboutToAdd, this, [this](int row) { beginInsertRows({}, row, row); });
  connect(queue, &RunQueue::added, this, [this] { endInsertRows(); });
  connect(queue, &RunQueue::aboutToRemove, this, [this](int row) { beginRemoveRows({}, row, row); });
  connect(queue, &RunQueue::removed, this, [this] { endRemoveRows(); });
  connect(queue, &RunQueue::aboutToMove, this, [this](int row, int to) { beginMoveRows({}, row, row, {}, to); });
  connect(queue, &RunQueue::moved, this, [this] { endMoveRows(); });
  connect(queue, &RunQueue::changed, this, [this](int row) { Q_EMIT dataChanged(index(row, 0), index(row, ColumnCount - 1)); });
}

int JobList::rowCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : int(m_queue->jobs().size()); }
int JobList::columnCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : ColumnCount; }

QVariant JobList::data(const QModelIndex& index, int role) const {
  if (!index.isValid()) return {};
  const Job& job = m_queue->jobs()[index.row()];
  const Progress& progress = job.progress;
  switch (role) {
    case Qt::DisplayRole:
      switch (index.column()) {
        case Name: return job.name;
        case State: return job.owner.isEmpty() || job.state != JobState::Running ? jobStateText(job.state) : tr("Elsewhere");
        case Stage:
          if (job.isWaiting() && !job.task.isEmpty()) return job.cluster.isEmpty() ? tr("Slurm %1").arg(job.task) : tr("Slurm %1: %2").arg(job.task, job.cluster);
          return !job.waiting.isEmpty() ? tr("Waits: %1").arg(job.waiting) : job.isActive() ? stageText(progress) : QString();
        case Block:
          return job.isActive() && progress.block >= 0 && progress.blocks > 0
                     ? tr("%1 of %2").arg(progress.block + 1).arg(progress.blocks)
                     : QString();
        case Done: return tr("%1 %").arg(int(progress.fraction * 100));
        case Eta:
          if (job.state == JobState::Finished && progress.elapsed_s > 0) return tr("took %1").arg(formatDuration(progress.elapsed_s));
          return job.isActive() && progress.eta_s >= 0 ? formatDuration(progress.eta_s) : QString();
        case Memory: return progress.rss_bytes > 0 ? formatBytes(double(progress.peak_rss_bytes)) : QString();
      }
      return {};
    case Qt::ToolTipRole: {
      QStringList lines{job.kind == JobKind::Export ? tr("%1: %2\n%3").arg(job.name, jobStateText(job.state), QString::fromStdString(job.wanted.output.string()))
                                                    : job.owner.isEmpty() ? tr("%1 on %2: %3").arg(job.name, job.device, jobStateText(job.state)) : tr("%1: %2").arg(job.name, jobStateText(job.state))};
      if (!job.owner.isEmpty()) lines << tr("Carried out by %1, followed here").arg(job.owner);
      if (job.isWaiting() && !job.task.isEmpty()) lines << tr("Slurm starts it as task %1 %2").arg(job.task, job.cluster);
      else if (job.isWaiting() && !job.ours) lines << tr("Waits in the workspace's queue; resume it to start it here");
      if (!job.waiting.isEmpty()) lines << tr("Waits: %1").arg(job.waiting);
      if (!progress.linear.empty()) lines << tr("At %1").arg(QString::fromStdString(progress.linear));
      if (progress.elapsed_s > 0) lines << tr("%1 so far").arg(formatDuration(progress.elapsed_s));
      if (progress.rss_bytes > 0)
        lines << tr("Memory of its process: %1 now, %2 at most").arg(formatBytes(double(progress.rss_bytes)), formatBytes(double(progress.peak_rss_bytes)));
      if (!job.estimate.isEmpty()) lines << job.estimate;
      if (!job.error.isEmpty()) lines << job.error;
      return lines.join(QLatin1Char('\n'));
    }
    case Qt::AccessibleTextRole:
      if (index.column() == Memory && progress.rss_bytes > 0)
        return tr("%1 now, %2 at most").arg(formatBytes(double(progress.rss_bytes)), formatBytes(double(progress.peak_rss_bytes)));
      return data(index, Qt::DisplayRole);
    case Qt::TextAlignmentRole:
      return int((index.column() == Block ? Qt::AlignRight : Qt::AlignLeft) | Qt::AlignVCenter);
    case IdRole: return job.id;
    case FractionRole: return progress.fraction;
    case SamplesRole: return QVariant::fromValue(job.memory);
    case StateRole: return int(job.state);
  }
  return {};
}

QVariant JobList::headerData(int section, Qt::Orientation orientation, int role) const {
  if (orientation != Qt::Horizontal) return {};
  if (role == Qt::ToolTipRole && section == Memory) return tr("Resident memory of the run's process; the figure is the highest");
  if (role == Qt::TextAlignmentRole) return int((section == Block ? Qt::AlignRight : Qt::AlignLeft) | Qt::AlignVCenter);
  if (role != Qt::DisplayRole) return {};
  switch (section) {
    case Name: return tr("Run");
    case State: return tr("State");
    case Stage: return tr("Stage");
    case Block: return tr("Block");
    case Done: return tr("Done");
    case Eta: return tr("Time left");
    case Memory: return tr("Memory");
  }
  return QString();
}

}  // namespace qb::views
