#pragma once
#include <QAbstractTableModel>
#include <QSortFilterProxyModel>

#include "views/models/LinearErrors.h"

namespace qb::views {

// The linears of the current run, ranked by the chosen metric, beside the baseline.
class HotSpotModel : public QAbstractTableModel {
  Q_OBJECT
 public:
  enum Column { Rank, Block, Linear, Value, Delta, ColumnCount };
  enum Role { KeyRole = Qt::UserRole + 1, SortRole };

  using QAbstractTableModel::QAbstractTableModel;

  void setData(const LinearErrors& errors);
  using QAbstractTableModel::setData;
  const LinearErrors& errors() const { return m_errors; }
  int rowOf(const LinearKey& key) const;
  int rank(int row) const { return m_ranks[row]; }  // 1: worst; NaN values last
  double value(int row) const { return m_errors.currentValue(m_rows[row]); }
  QString subset(int row) const { return m_errors.subsets[m_rows[row]]; }

  int rowCount(const QModelIndex& parent = {}) const override;
  int columnCount(const QModelIndex& parent = {}) const override;
  QVariant data(const QModelIndex& index, int role) const override;
  QVariant headerData(int section, Qt::Orientation orientation, int role) const override;

 private:
  LinearErrors m_errors;
  QVector<int> m_rows, m_ranks;  // rows with a value, in depth order
};

// The worst `count` of a subset, not better than a threshold.
class HotSpotFilter : public QSortFilterProxyModel {
  Q_OBJECT
 public:
  explicit HotSpotFilter(QObject* parent = nullptr);
  void setCount(int count);            // 0: all
  void setThreshold(double threshold); // NaN: none; keeps values at least as bad
  void setSubset(const QString& subset);

 protected:
  bool filterAcceptsRow(int row, const QModelIndex& parent) const override;
  bool lessThan(const QModelIndex& left, const QModelIndex& right) const override;

 private:
  int m_count = 0;
  double m_threshold;
  QString m_subset;
};

}  // namespace qb::views
