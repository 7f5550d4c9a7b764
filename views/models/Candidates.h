#pragma once
#include <QAbstractTableModel>
#include <QVector>
#include <memory>

#include "views/jobs/BestChooser.h"
#include "views/models/Accuracy.h"

namespace qb::views {

using BestAnswerPtr = std::shared_ptr<const BestAnswer>;

// The runs that one may take home: figures measured, then those predicted, and how each stands among the others. What nobody beats comes first.
class CandidateTable : public QAbstractTableModel {
  Q_OBJECT
 public:
  explicit CandidateTable(QObject* parent = nullptr) : QAbstractTableModel(parent) {}
  void setAnswer(const BestAnswerPtr& answer);
  const BestCandidate* candidate(int row) const;
  int candidateIndex(int row) const { return m_order.value(row, -1); }  // in BestPractice::runs
  int rowOf(const QString& run) const;                                  // −1: not among them
  int chosenRow() const;

  int rowCount(const QModelIndex& parent = {}) const override { return parent.isValid() ? 0 : int(m_order.size()); }
  int columnCount(const QModelIndex& parent = {}) const override { return parent.isValid() ? 0 : int(m_columns.size()); }
  QVariant data(const QModelIndex& index, int role = Qt::DisplayRole) const override;
  QVariant headerData(int section, Qt::Orientation orientation, int role = Qt::DisplayRole) const override;

 private:
  struct Column {
    enum Kind { Name, Measured, Decode, Prefill, Memory, Formats, Standing } kind;
    size_t measure = 0;
    QString title, help;
    bool predicted() const { return kind == Decode || kind == Prefill || kind == Memory; }
  };
  QString cell(const BestCandidate& one, int index, const Column& column) const;
  BestAnswerPtr m_answer;
  QVector<int> m_order;
  QVector<Column> m_columns;
};

// How one candidate stands: figures, who beats it and by how much, what it is predicted to do.
QString standingText(const BestAnswer& answer, int candidate);
// Candidates for the picture of size and figure, in the runs' own colours.
Accuracy accuracyOf(const BestAnswer& answer, const Selection& selection);

}  // namespace qb::views
