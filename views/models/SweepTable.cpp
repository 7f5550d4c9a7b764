#include "views/models/SweepTable.h"

#include <algorithm>

#include "views/models/Format.h"

namespace qb::views {
namespace {

QString text(const std::string& value) { return QString::fromStdString(value); }

QString stateText(const SweepRow& row) {
  if (!row.plan) return SweepTable::tr("does not fit");
  switch (row.state) {
    case SweepRow::State::fresh: return SweepTable::tr("new");
    case SweepRow::State::stopped: return SweepTable::tr("to go on");
    case SweepRow::State::at_work: return SweepTable::tr("at work");
    case SweepRow::State::done: return SweepTable::tr("done");
  }
  return {};
}

}  // namespace

void SweepTable::setRows(std::vector<SweepRow> rows, bool gpu) {
  beginResetModel();
  m_rows = std::move(rows);
  m_gpu = gpu;
  m_keys.clear();
  for (const SweepRow& row : m_rows)
    for (const SweepValue& value : row.entry.differing)
      if (const QString name = text(value.key); !m_keys.contains(name)) m_keys << name;
  endResetModel();
}

void SweepTable::setAll(bool checked) {
  m_unwanted.clear();
  if (!checked)
    for (int row = 0; row < rowCount(); ++row) m_unwanted.insert(key(row));
  if (!m_rows.empty()) Q_EMIT dataChanged(index(0, 0), index(rowCount() - 1, 0), {Qt::CheckStateRole});
}

std::vector<const SweepRow*> SweepTable::checked() const {
  std::vector<const SweepRow*> wanted;
  for (int row = 0; row < rowCount(); ++row)
    if (isChecked(row)) wanted.push_back(&m_rows[size_t(row)]);
  return wanted;
}

QString SweepTable::summary() const {
  const auto wanted = checked();
  if (wanted.empty()) return tr("Nothing is chosen");
  double seconds = 0, disk = 0;
  bool guess = false;
  for (const SweepRow* row : wanted) {
    seconds += row->cost.seconds();
    disk += row->cost.disk_bytes;
    guess = guess || row->cost.guess;
  }
  return (wanted.size() == 1 ? tr("1 run, about %2, %3 of disk") : tr("%1 runs, about %2, %3 of disk").arg(wanted.size())).arg(formatDuration(seconds), formatBytes(disk)) +
         (guess ? tr(" · ? is a guess: no run of the kind was measured here yet") : QString());
}

int SweepTable::rowCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : int(m_rows.size()); }
int SweepTable::columnCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : 1 + int(m_keys.size()) + LastCount; }

QVariant SweepTable::data(const QModelIndex& index, int role) const {
  if (!index.isValid()) return {};
  const SweepRow& row = m_rows[size_t(index.row())];
  const int column = last(index.column());
  if (role == Qt::CheckStateRole && index.column() == 0) return isChecked(index.row()) ? Qt::Checked : Qt::Unchecked;
  if (role == Qt::TextAlignmentRole) return int((column >= Time && column <= Disk ? Qt::AlignRight : Qt::AlignLeft) | Qt::AlignVCenter);
  if (role == Qt::ToolTipRole) {
    if (!row.plan) return text(row.refusal);
    QStringList lines{text(row.entry.recipe.name)};
    for (const SweepValue& value : row.entry.differing) lines << QStringLiteral("%1: %2").arg(text(value.key), text(value.value));
    lines << tr("Loading %1, quantizing %2, evaluating %3").arg(formatDuration(row.cost.load_seconds), formatDuration(row.cost.quantize_seconds), formatDuration(row.cost.evaluate_seconds));
    lines << tr("Time by %1").arg(text(row.cost.basis));
    return lines.join(QLatin1Char('\n'));
  }
  if (role != Qt::DisplayRole) return {};
  if (index.column() == 0) return text(row.entry.recipe.name);
  if (column < 0) {
    const std::string wanted = m_keys[index.column() - 1].toStdString();
    for (const SweepValue& value : row.entry.differing)
      if (value.key == wanted) return text(shown_value(value));
    return QStringLiteral("–");
  }
  switch (column) {
    case Time: return row.waits() ? formatDuration(row.cost.seconds()) + (row.cost.guess ? QStringLiteral(" ?") : QString()) : QStringLiteral("–");
    case Memory: return row.plan ? formatBytes(m_gpu ? row.cost.device_bytes : row.cost.memory_bytes) : QStringLiteral("–");
    case Disk: return row.plan ? formatBytes(row.cost.disk_bytes) : QStringLiteral("–");
    case State: return stateText(row);
  }
  return {};
}

QVariant SweepTable::headerData(int section, Qt::Orientation orientation, int role) const {
  if (orientation != Qt::Horizontal) return {};
  if (role == Qt::TextAlignmentRole) return int((last(section) >= Time && last(section) <= Disk ? Qt::AlignRight : Qt::AlignLeft) | Qt::AlignVCenter);
  if (section > 0 && last(section) < 0) {
    const QString key = m_keys[section - 1];
    if (role == Qt::ToolTipRole) return key;
    if (role != Qt::DisplayRole) return {};
    // The last part tells it, unless another ends likewise.
    const QString leaf = key.section(QLatin1Char('.'), -1);
    const auto alike = std::count_if(m_keys.begin(), m_keys.end(), [&](const QString& other) { return other.section(QLatin1Char('.'), -1) == leaf; });
    return alike > 1 ? key : leaf;
  }
  if (role == Qt::ToolTipRole && last(section) == Memory) return m_gpu ? tr("Of the GPU, at most") : tr("At most");
  if (role != Qt::DisplayRole) return {};
  if (section == 0) return tr("Recipe");
  switch (last(section)) {
    case Time: return tr("Time");
    case Memory: return m_gpu ? tr("GPU memory") : tr("Memory");
    case Disk: return tr("Disk");
    case State: return tr("State");
  }
  return {};
}

bool SweepTable::setData(const QModelIndex& index, const QVariant& value, int role) {
  if (role != Qt::CheckStateRole || index.column() != 0 || !m_rows[size_t(index.row())].waits()) return false;
  if (value.toInt() == Qt::Checked)
    m_unwanted.erase(key(index.row()));
  else
    m_unwanted.insert(key(index.row()));
  Q_EMIT dataChanged(index, index, {Qt::CheckStateRole});
  return true;
}

Qt::ItemFlags SweepTable::flags(const QModelIndex& index) const {
  if (!index.isValid()) return {};
  if (!m_rows[size_t(index.row())].waits()) return Qt::ItemIsSelectable;
  return Qt::ItemIsSelectable | Qt::ItemIsEnabled | (index.column() == 0 ? Qt::ItemIsUserCheckable : Qt::NoItemFlags);
}

}  // namespace qb::views
