#pragma once
#include <QAbstractTableModel>
#include <QVector>

#include "core/measure/tensor_summary.h"
#include "views/models/Selection.h"

namespace qb::views {

// What is worth knowing, as name and value, with units.
struct Fact {
  QString name, value, toolTip;
  bool operator==(const Fact&) const = default;
};
QVector<Fact> runFacts(const RunReport& report, const QString& owner = {});  // owner: RunEntry::owner
QVector<Fact> linearFacts(const LinearReport& linear);
QVector<Fact> tensorFacts(const TensorSummary& summary);

class FactsModel : public QAbstractTableModel {
  Q_OBJECT
 public:
  using QAbstractTableModel::QAbstractTableModel;
  void setFacts(const QVector<Fact>& facts);
  const QVector<Fact>& facts() const { return m_facts; }

  int rowCount(const QModelIndex& parent = {}) const override;
  int columnCount(const QModelIndex& parent = {}) const override;
  QVariant data(const QModelIndex& index, int role) const override;
  QVariant headerData(int section, Qt::Orientation orientation, int role) const override;

 private:
  QVector<Fact> m_facts;
};

// All figures of one linear, a column a run.
class LinearNumbersModel : public QAbstractTableModel {
  Q_OBJECT
 public:
  using QAbstractTableModel::QAbstractTableModel;
  void setRuns(const QVector<RunEntry>& runs, const LinearKey& key);

  int rowCount(const QModelIndex& parent = {}) const override;
  int columnCount(const QModelIndex& parent = {}) const override;
  QVariant data(const QModelIndex& index, int role) const override;
  QVariant headerData(int section, Qt::Orientation orientation, int role) const override;

 private:
  QVector<RunEntry> m_runs;
  QVector<const LinearReport*> m_linears;  // owned by the runs' reports; nullptr: not measured yet
};

}  // namespace qb::views
