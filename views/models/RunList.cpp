#include "views/models/RunList.h"

#include <QFont>
#include <QLocale>
#include <algorithm>
#include <cmath>

#include "views/models/Format.h"

namespace qb::views {

const EvaluationResult* mainPerplexity(const RunReport& report) { return find_evaluation(report, "perplexity", false); }

QString evaluationText(const EvaluationResult& result) {
  return RunList::tr("%1: %2 on %3").arg(QString::fromStdString(subject_text(result)), QString::fromStdString(figure_text(result)),
                                        QString::fromStdString(conditions_text(result)));
}

QString runStatusText(RunStatus status) {
  switch (status) {
    case RunStatus::queued: return RunList::tr("Waiting");
    case RunStatus::running: return RunList::tr("Running");
    case RunStatus::paused: return RunList::tr("Paused");
    case RunStatus::finished: return RunList::tr("Finished");
    case RunStatus::cancelled: return RunList::tr("Stopped");
    case RunStatus::interrupted: return RunList::tr("Interrupted");
    case RunStatus::failed: return RunList::tr("Failed");
  }
  return {};
}

QString runToolTip(const RunReport& report, const QString& owner) {
  const auto text = [](const std::string& value) { return QString::fromStdString(value).toHtmlEscaped(); };
  QString html = QStringLiteral("<p><b>%1</b></p><table cellspacing='2'>").arg(text(report.name));
  const auto row = [&](const QString& name, const QString& value) {
    if (!value.isEmpty()) html += QStringLiteral("<tr><td>%1&nbsp;&nbsp;</td><td>%2</td></tr>").arg(name, value);
  };
  row(RunList::tr("Model"), text(report.model_name));
  row(RunList::tr("Scheme"), text(report.scheme));
  row(RunList::tr("Pipeline"), text(report.pipeline));
  row(RunList::tr("Carried out by"), owner.toHtmlEscaped());
  row(RunList::tr("Started"), text(report.started));
  if (report.quantize_seconds > 0) row(RunList::tr("Quantized in"), formatDuration(report.quantize_seconds));
  if (report.peak_rss_bytes > 0) row(RunList::tr("Peak memory"), formatBytes(double(report.peak_rss_bytes)));
  if (report.peak_device_bytes > 0) row(RunList::tr("Peak GPU memory"), formatBytes(double(report.peak_device_bytes)));
  for (const EvaluationResult& result : report.evaluations) row(RunList::tr("Measured"), evaluationText(result).toHtmlEscaped());
  row(RunList::tr("Error"), text(report.error));
  return html + QStringLiteral("</table>");
}

RunFilter::RunFilter(Selection* selection, RunList* list, QObject* parent) : QSortFilterProxyModel(parent), m_selection(selection) {
  setSourceModel(list);
  setSortRole(RunList::SortRole);
  connect(selection, &Selection::runsChanged, this, &RunFilter::invalidateFilter);
  connect(selection, &Selection::currentModelChanged, this, &RunFilter::invalidateFilter);
}

void RunFilter::search(const QString& text) {
  m_words = text.split(QLatin1Char(' '), Qt::SkipEmptyParts);
  invalidateFilter();
}

bool RunFilter::filterAcceptsRow(int row, const QModelIndex& parent) const {
  const QModelIndex run = sourceModel()->index(row, 0, parent);
  if (run.data(RunList::ModelRole).toString() != m_selection->currentModel()) return false;
  if (m_words.isEmpty()) return true;
  const QString text = run.data(RunList::SearchRole).toString();
  return std::all_of(m_words.begin(), m_words.end(), [&](const QString& word) { return text.contains(word, Qt::CaseInsensitive); });
}

bool RunFilter::lessThan(const QModelIndex& left, const QModelIndex& right) const {
  const QVariant a = left.data(RunList::SortRole), b = right.data(RunList::SortRole);
  if (a.isValid() != b.isValid()) return a.isValid() == (sortOrder() == Qt::AscendingOrder);
  return QSortFilterProxyModel::lessThan(left, right);
}

RunList::RunList(Selection* selection, QObject* parent) : QAbstractTableModel(parent), m_selection(selection) {
  connect(selection, &Selection::runsChanged, this, &RunList::refresh);
  connect(selection, &Selection::runUpdated, this, [this](const QString& id) {
    if (const int row = rowOf(id); row >= 0) Q_EMIT dataChanged(index(row, 0), index(row, ColumnCount - 1));
  });
  connect(selection, &Selection::baselineChanged, this, &RunList::refresh);
  refresh();
}

// Brings the rows in step with Selection's runs, with few changes that views must hear of: each costs them a look at all rows.
void RunList::refresh() {
  const auto& runs = m_selection->runs();
  for (int last = int(m_ids.size()) - 1; last >= 0; --last) {
    if (m_selection->find(m_ids[last])) continue;
    int first = last;
    while (first > 0 && !m_selection->find(m_ids[first - 1])) --first;
    beginRemoveRows({}, first, last);
    m_ids.remove(first, last - first + 1);
    m_places.clear();
    for (int row = 0; row < int(m_ids.size()); ++row) m_places.insert(m_ids[row], int(m_ids.size()) - row);
    endRemoveRows();
    last = first;
  }
  QVector<QString> added;  // newest first
  for (auto run = runs.rbegin(); run != runs.rend(); ++run)
    if (!m_places.contains(run->id)) added << run->id;
  if (!added.isEmpty()) {
    beginInsertRows({}, 0, int(added.size()) - 1);
    for (int i = int(added.size()) - 1, place = int(m_ids.size()); i >= 0; --i) m_places.insert(added[i], ++place);
    m_ids = added + m_ids;
    endInsertRows();
  }
  if (!m_ids.isEmpty()) Q_EMIT dataChanged(index(0, 0), index(int(m_ids.size()) - 1, ColumnCount - 1));
}

int RunList::rowOf(const QString& id) const {
  const auto place = m_places.constFind(id);
  return place == m_places.constEnd() ? -1 : int(m_ids.size()) - *place;
}

void RunList::setActivity(const QString& id, const QString& text) {
  if (m_activity.value(id) == text) return;
  if (text.isEmpty())
    m_activity.remove(id);
  else
    m_activity[id] = text;
  if (const int row = rowOf(id); row >= 0) Q_EMIT dataChanged(index(row, Status), index(row, Status));
}

int RunList::rowCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : int(m_ids.size()); }
int RunList::columnCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : ColumnCount; }

QVariant RunList::data(const QModelIndex& index, int role) const {
  if (!index.isValid()) return {};
  const RunEntry* run = m_selection->find(m_ids[index.row()]);
  if (!run) return {};
  const RunReport& report = *run->report;
  const EvaluationResult* perplexity = mainPerplexity(report);
  const QString activity = m_activity.value(run->id);
  switch (role) {
    case Qt::DisplayRole:
      switch (index.column()) {
        case Name: return QString::fromStdString(report.name);
        case Perplexity: return perplexity ? formatPerplexity(perplexity->value("perplexity")) : QStringLiteral("–");
        case Bits: return report.bits_per_weight > 0 ? QLocale().toString(report.bits_per_weight, 'f', 2) : QStringLiteral("–");
        case Status: return !activity.isEmpty() ? activity : run->owner.isEmpty() ? runStatusText(report.status) : elsewhereText(*run);
      }
      return {};
    case Qt::EditRole: return index.column() == Name ? QString::fromStdString(report.name) : QVariant();
    case Qt::CheckStateRole: return index.column() == Shown ? QVariant(run->shown ? Qt::Checked : Qt::Unchecked) : QVariant();
    case Qt::ToolTipRole: return runToolTip(report, run->owner);
    case Qt::TextAlignmentRole:
      return int((index.column() == Perplexity || index.column() == Bits ? Qt::AlignRight : Qt::AlignLeft) | Qt::AlignVCenter);
    case Qt::FontRole: {
      QFont font;
      font.setBold(run->id == m_selection->baseline());
      return font;
    }
    case Qt::AccessibleTextRole:
      if (index.column() == Shown) return run->shown ? tr("Shown in plots") : tr("Hidden in plots");
      return data(index, Qt::DisplayRole);
    case IdRole: return run->id;
    case ColourRole: return run->colour;
    case MarkerRole: return run->marker;
    case ModelRole: return run->model;
    case SearchRole:
      return QStringList{QString::fromStdString(report.name), QString::fromStdString(report.scheme), QString::fromStdString(report.pipeline), run->id, runStatusText(report.status)}.join(QLatin1Char('\n'));
    case SortRole:
      switch (index.column()) {
        case Shown: return run->shown;
        case Perplexity: return perplexity && std::isfinite(perplexity->value("perplexity")) ? QVariant(perplexity->value("perplexity")) : QVariant();
        case Bits: return report.bits_per_weight > 0 ? QVariant(report.bits_per_weight) : QVariant();
        default: return data(index, Qt::DisplayRole);
      }
  }
  return {};
}

// Blocks done of how many. Short, as names need the room: the tooltip and the Inspector tell who it is.
QString RunList::elsewhereText(const RunEntry& run) const {
  const ModelPtr model = run.model == m_selection->currentModel() ? m_selection->openModel() : ModelPtr();
  const auto blocks = run.report->blocks.size();
  return model ? tr("Elsewhere %1/%2").arg(blocks).arg(model->blocks.size()) : tr("Elsewhere %1").arg(blocks);
}

bool RunList::setData(const QModelIndex& index, const QVariant& value, int role) {
  if (!index.isValid()) return false;
  const QString id = m_ids[index.row()];
  if (role == Qt::CheckStateRole && index.column() == Shown) {
    Q_EMIT showRequested(id, value.toInt() == Qt::Checked);
    return true;
  }
  const QString name = value.toString().trimmed();
  if (role != Qt::EditRole || index.column() != Name || name.isEmpty()) return false;
  Q_EMIT renameRequested(id, name);
  return true;
}

Qt::ItemFlags RunList::flags(const QModelIndex& index) const {
  Qt::ItemFlags flags = QAbstractTableModel::flags(index);
  if (!index.isValid()) return flags;
  flags |= Qt::ItemNeverHasChildren;
  if (index.column() == Shown) flags |= Qt::ItemIsUserCheckable;
  if (index.column() == Name) flags |= Qt::ItemIsEditable;
  return flags;
}

QVariant RunList::headerData(int section, Qt::Orientation orientation, int role) const {
  if (orientation != Qt::Horizontal) return {};
  if (role == Qt::TextAlignmentRole)
    return int((section == Perplexity || section == Bits ? Qt::AlignRight : Qt::AlignLeft) | Qt::AlignVCenter);
  if (role == Qt::ToolTipRole) switch (section) {
      case Shown: return tr("Shown in plots, and the run's colour");
      case Perplexity: return tr("Perplexity of the quantized model on the first text evaluated; lower is better. Hover a run for its conditions.");
      case Bits: return tr("Bits per quantized weight, scales and zero points included");
    }
  if (role == Qt::AccessibleTextRole && section == Shown) return tr("Shown");
  if (role != Qt::DisplayRole) return {};
  switch (section) {
    case Name: return tr("Name");
    case Perplexity: return tr("PPL");
    case Bits: return tr("Bits");
    case Status: return tr("Status");
  }
  return QString();
}

}  // namespace qb::views
