#include "views/models/HotSpotModel.h"

#include <cmath>

#include "views/plots/PlotStyle.h"

namespace qb::views {

void HotSpotModel::setData(const LinearErrors& errors) {
  // The same linears again (another block's figures, another metric): the rows stay, so that selection and scrolling do.
  QVector<int> rows;
  for (int row = 0; row < errors.rows(); ++row)
    if (!std::isnan(errors.currentValue(row))) rows.push_back(row);
  const bool same = rows == m_rows && errors.keys == m_errors.keys;
  if (!same) beginResetModel();
  m_errors = errors;
  m_rows = rows;
  m_ranks.fill(0, rows.size());
  QHash<int, int> place;
  for (int i = 0; i < int(rows.size()); ++i) place[rows[i]] = i;
  int rank = 0;
  for (const int row : orderedRows(errors, LinearOrder::Value, {})) {
    const auto it = place.constFind(row);
    if (it != place.constEnd()) m_ranks[*it] = ++rank;
  }
  if (!same)
    endResetModel();
  else if (!rows.isEmpty())
    Q_EMIT dataChanged(index(0, 0), index(int(rows.size()) - 1, ColumnCount - 1));
  Q_EMIT headerDataChanged(Qt::Horizontal, 0, ColumnCount - 1);
}

int HotSpotModel::rowOf(const LinearKey& key) const { return int(m_rows.indexOf(m_errors.rowOf(key))); }

int HotSpotModel::rowCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : int(m_rows.size()); }

int HotSpotModel::columnCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : int(ColumnCount); }

QVariant HotSpotModel::data(const QModelIndex& index, int role) const {
  if (!index.isValid()) return {};
  const int row = m_rows[index.row()];
  const LinearKey& key = m_errors.keys[row];
  switch (role) {
    case Qt::DisplayRole:
      switch (index.column()) {
        case Rank: return m_ranks[index.row()];
        case Block: return key.block;
        case Linear: return shortName(key.name);
        case Value: return formatNumber(m_errors.currentValue(row));
        case Delta: {
          const double delta = m_errors.delta(row);
          return (delta > 0 ? QStringLiteral("+") : QString()) + formatNumber(delta, 3);
        }
      }
      break;
    case SortRole:
      switch (index.column()) {
        case Rank: return m_ranks[index.row()];
        case Block:
        case Linear: return index.column() == Block ? QVariant(key.block) : QVariant(key.name);
        case Value: return m_errors.currentValue(row);
        case Delta: return m_errors.delta(row);
      }
      break;
    case KeyRole: return QVariant::fromValue(key);
    case Qt::ToolTipRole:
    case Qt::AccessibleTextRole: {
      QString text = tr("%1 (%2), rank %3: %4 %5")
                         .arg(linearTitle(key), m_errors.subsets[row])
                         .arg(m_ranks[index.row()])
                         .arg(metricTitle(m_errors.metric), formatWithUnit(m_errors.currentValue(row), metricUnit(m_errors.metric)));
      const double delta = m_errors.delta(row);
      if (!std::isnan(delta))
        text += tr(", Δ to the baseline %1 (%2)")
                    .arg(formatNumber(delta, 3), m_errors.worsening(row) > 0 ? tr("worse") : delta == 0 ? tr("equal") : tr("better"));
      return text;
    }
    case Qt::TextAlignmentRole:
      return int((index.column() == Linear ? Qt::AlignLeft : Qt::AlignRight) | Qt::AlignVCenter);
  }
  return {};
}

QVariant HotSpotModel::headerData(int section, Qt::Orientation orientation, int role) const {
  if (orientation != Qt::Horizontal) return {};
  if (role == Qt::TextAlignmentRole) return int((section == Linear ? Qt::AlignLeft : Qt::AlignRight) | Qt::AlignVCenter);
  if (role == Qt::ToolTipRole) {
    if (section == Value) return metricLabel(m_errors.metric);
    if (section == Delta) return tr("%1: this run minus the baseline").arg(metricLabel(m_errors.metric));
    if (section == Rank) return tr("1 is the worst linear of the run");
    return {};
  }
  if (role != Qt::DisplayRole) return {};
  const QString unit = metricUnit(m_errors.metric);
  switch (section) {
    case Rank: return tr("#");
    case Block: return tr("Block");
    case Linear: return tr("Linear");
    case Value: return unit.isEmpty() ? tr("Value") : tr("Value (%1)").arg(unit);
    case Delta: return unit.isEmpty() ? tr("Δ base") : tr("Δ base (%1)").arg(unit);
  }
  return {};
}

HotSpotFilter::HotSpotFilter(QObject* parent) : QSortFilterProxyModel(parent), m_threshold(std::nan("")) {
  setSortRole(HotSpotModel::SortRole);
}

void HotSpotFilter::setCount(int count) {
  m_count = count;
  invalidateFilter();
}

void HotSpotFilter::setThreshold(double threshold) {
  m_threshold = threshold;
  invalidateFilter();
}

void HotSpotFilter::setSubset(const QString& subset) {
  m_subset = subset;
  invalidateFilter();
}

bool HotSpotFilter::filterAcceptsRow(int row, const QModelIndex&) const {
  const auto* model = static_cast<const HotSpotModel*>(sourceModel());
  if (!m_subset.isEmpty() && model->subset(row) != m_subset) return false;
  if (!std::isnan(m_threshold)) {
    const double value = model->value(row);
    if (metricHigherIsBetter(model->errors().metric) ? value > m_threshold : value < m_threshold) return false;
  }
  if (m_count == 0) return true;
  if (m_subset.isEmpty()) return model->rank(row) <= m_count;
  int better = 0;  // of the subset, how many are worse than this one
  for (int other = 0; other < model->rowCount(); ++other)
    if (model->subset(other) == m_subset && model->rank(other) < model->rank(row) && ++better >= m_count) return false;
  return true;
}

bool HotSpotFilter::lessThan(const QModelIndex& left, const QModelIndex& right) const {
  const QVariant a = left.data(HotSpotModel::SortRole), b = right.data(HotSpotModel::SortRole);
  if (a.userType() == QMetaType::Double) {
    const double x = a.toDouble(), y = b.toDouble();
    if (std::isnan(x) || std::isnan(y)) return !std::isnan(y) && std::isnan(x);
    return x < y;
  }
  if (a.userType() == QMetaType::QString) {
    const int order = QString::compare(a.toString(), b.toString());
    return order != 0 ? order < 0 : left.row() < right.row();
  }
  return a.toInt() < b.toInt();
}

}  // namespace qb::views
