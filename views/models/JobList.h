#pragma once
#include <QAbstractTableModel>

#include "views/jobs/RunQueue.h"

namespace qb::views {

// The queue as a table: what runs, where it stands, how long it will take, what memory it needs.
class JobList : public QAbstractTableModel {
  Q_OBJECT
 public:
  enum Column { Name, State, Stage, Block, Done, Eta, Memory, Actions, ColumnCount };
  enum Role { IdRole = Qt::UserRole + 1, FractionRole, SamplesRole, StateRole };

  explicit JobList(RunQueue* queue, QObject* parent = nullptr);

  int rowCount(const QModelIndex& parent = {}) const override;
  int columnCount(const QModelIndex& parent = {}) const override;
  QVariant data(const QModelIndex& index, int role) const override;
  QVariant headerData(int section, Qt::Orientation orientation, int role) const override;

 private:
  RunQueue* m_queue;
};

// "Quantize · gptq", in the reader's words.
QString stageText(const Progress& progress);

}  // namespace qb::views
