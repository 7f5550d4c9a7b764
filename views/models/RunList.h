#pragma once
#include <QAbstractTableModel>
#include <QSortFilterProxyModel>

#include "views/models/Selection.h"

namespace qb::views {

// The runs of the workspace as Selection holds them: eye, colour, name, perplexity, bits, status.
class RunList : public QAbstractTableModel {
  Q_OBJECT
 public:
  enum Column { Shown, Name, Perplexity, Bits, Status, ColumnCount };
  enum Role { IdRole = Qt::UserRole + 1, SortRole, ColourRole, MarkerRole, ModelRole, SearchRole };  // SortRole: invalid where there is no figure

  explicit RunList(Selection* selection, QObject* parent = nullptr);

  int rowCount(const QModelIndex& parent = {}) const override;
  int columnCount(const QModelIndex& parent = {}) const override;
  QVariant data(const QModelIndex& index, int role) const override;
  bool setData(const QModelIndex& index, const QVariant& value, int role) override;
  Qt::ItemFlags flags(const QModelIndex& index) const override;
  QVariant headerData(int section, Qt::Orientation orientation, int role) const override;
  int rowOf(const QString& id) const;
  // Live text beside the status, for example "42 %".
  void setActivity(const QString& id, const QString& text);

 Q_SIGNALS:
  void renameRequested(const QString& id, const QString& name);
  void showRequested(const QString& id, bool shown);

 private:
  void refresh();
  QString elsewhereText(const RunEntry& run) const;
  Selection* m_selection;
  QVector<QString> m_ids;  // rows as the views know them
  QHash<QString, int> m_places;  // in m_ids, from the end: what is new comes first
  QHash<QString, QString> m_activity;
};

// The runs of the current model, in the order that the user wants; runs without a figure come last in either direction.
class RunFilter : public QSortFilterProxyModel {
  Q_OBJECT
 public:
  RunFilter(Selection* selection, RunList* list, QObject* parent = nullptr);
  void search(const QString& text);  // every word in name, scheme, pipeline, status or folder

 protected:
  bool filterAcceptsRow(int row, const QModelIndex& parent) const override;
  bool lessThan(const QModelIndex& left, const QModelIndex& right) const override;

 private:
  Selection* m_selection;
  QStringList m_words;
};

// The perplexity that stands for a run: of the quantized model on the first corpus evaluated; nullptr: none yet.
const EvaluationResult* mainPerplexity(const RunReport& report);
// "perplexity 23.4 ± 0.2 on wikitext2 (20 windows of 2048 tokens, float32)"
QString evaluationText(const EvaluationResult& result);
QString runStatusText(RunStatus status);
QString runToolTip(const RunReport& report, const QString& owner = {});

}  // namespace qb::views
