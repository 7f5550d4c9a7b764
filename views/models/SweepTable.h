#pragma once
#include <QAbstractTableModel>
#include <QStringList>
#include <set>
#include <vector>

#include "core/run/sweep_survey.h"

namespace qb::views {

// A sweep's recipes as a table: what differs, what each will take, what the workspace has of it; a check mark at those to carry out.
class SweepTable : public QAbstractTableModel {
  Q_OBJECT
 public:
  using QAbstractTableModel::QAbstractTableModel;
  // Marks kept where the recipe is the same; new ones are to be carried out.
  void setRows(std::vector<SweepRow> rows, bool gpu);
  const std::vector<SweepRow>& rows() const { return m_rows; }
  bool isChecked(int row) const { return m_rows[size_t(row)].waits() && !m_unwanted.contains(key(row)); }
  void setAll(bool checked);
  std::vector<const SweepRow*> checked() const;
  // "14 runs, about 2 h 05 min, 3.1 GiB of disk"
  QString summary() const;

  int rowCount(const QModelIndex& parent = {}) const override;
  int columnCount(const QModelIndex& parent = {}) const override;
  QVariant data(const QModelIndex& index, int role) const override;
  QVariant headerData(int section, Qt::Orientation orientation, int role) const override;
  bool setData(const QModelIndex& index, const QVariant& value, int role) override;
  Qt::ItemFlags flags(const QModelIndex& index) const override;

 private:
  enum Last { Time, Memory, Disk, State, LastCount };  // behind the name and the keys
  std::string key(int row) const { return recipe_hash(m_rows[size_t(row)].entry.recipe); }
  int last(int column) const { return column - 1 - int(m_keys.size()); }

  std::vector<SweepRow> m_rows;
  QStringList m_keys;
  std::set<std::string> m_unwanted;
  bool m_gpu = false;
};

}  // namespace qb::views
