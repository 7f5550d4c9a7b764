#pragma once
#include <QAbstractItemModel>
#include <QTimer>

#include "core/store/run_table.h"
#include "views/models/RunList.h"

namespace qb::views {

class Background;

// All runs of the workspace as the Runs page shows them: the columns of core's table of runs behind the eye, those that a query
// accepts, in the order that the user wants, in groups or not. Which rows there are is found out on a worker thread, from
// immutable reports; the GUI thread only takes the result over. Two levels where there are groups, else one.
class RunTable : public QAbstractItemModel {
  Q_OBJECT
 public:
  RunTable(Selection* selection, RunList* list, Background* background, QObject* parent = nullptr);

  static int columnOf(const char* key);  // of a column of core's table
  void setQuery(const RunQuery& query);
  void setGrouping(const QString& key);  // "model", "scheme" …; empty: none
  bool isGrouped() const { return !m_applied.isEmpty(); }
  int shownRuns() const { return m_shown; }
  QModelIndex indexOf(const QString& id, int column = 0) const;
  QStringList ids() const;  // in the order shown
  RunPtr baseline() const;  // of Δ; nullptr: each run's float model

  QModelIndex index(int row, int column, const QModelIndex& parent = {}) const override;
  QModelIndex parent(const QModelIndex& child) const override;
  int rowCount(const QModelIndex& parent = {}) const override;
  int columnCount(const QModelIndex& parent = {}) const override;
  QVariant data(const QModelIndex& index, int role) const override;
  bool setData(const QModelIndex& index, const QVariant& value, int role) override;
  Qt::ItemFlags flags(const QModelIndex& index) const override;
  QVariant headerData(int section, Qt::Orientation orientation, int role) const override;
  void sort(int column, Qt::SortOrder order) override;

 Q_SIGNALS:
  void aboutToArrange();  // rows come and go: what is selected is to be kept by id
  void arranged();
  void showRequested(const QString& id, bool shown);
  void renameRequested(const QString& id, const QString& name);
  void tagsRequested(const QString& id, const std::vector<std::string>& tags);
  void notesRequested(const QString& id, const QString& notes);

 private:
  struct Group {
    QString title, facts;  // "int4 g64", "40 runs, lowest perplexity 18.3456"
    QVector<QString> ids;
    bool operator==(const Group&) const = default;
  };
  struct Place {
    int group = 0, row = 0;
  };
  struct Wanted {
    RunQuery query;
    std::string grouping;
    int column = -1;
    bool descending = false;
    QVector<RunEntry> runs;
    RunPtr baseline;
  };
  static QVector<Group> arrange(const Wanted& wanted);
  void schedule(int milliseconds);
  void start();
  void apply(const QVector<Group>& groups);
  void runChanged(const QString& id);
  void tellAll(int firstColumn, int lastColumn);
  bool isGroup(const QModelIndex& index) const { return isGrouped() && index.internalId() == 0; }
  QString idAt(const QModelIndex& index) const;

  Selection* m_selection;
  RunList* m_list;
  Background* m_background;
  QTimer m_timer;
  RunQuery m_query;
  QString m_grouping, m_applied;  // m_applied: the grouping of m_groups
  int m_column = -1, m_shown = 0;
  Qt::SortOrder m_order = Qt::AscendingOrder;
  QVector<Group> m_groups;  // one where there is no grouping
  QHash<QString, Place> m_places;
};

}  // namespace qb::views
