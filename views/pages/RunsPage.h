#pragma once
#include <QSet>
#include <QWidget>
#include <vector>

class QComboBox;
class QLabel;
class QLineEdit;
class QMenu;
class QTreeView;

namespace qb {
struct RunColumn;
}

namespace qb::views {

class RunMenu;
class RunTable;
class Workbench;

// All runs of the workspace as one table: what was tried, what came of it? Columns, filter, groups and order are the user's.
class RunsPage : public QWidget {
  Q_OBJECT
 public:
  explicit RunsPage(Workbench* workbench, QWidget* parent = nullptr);

  QTreeView* table() { return m_table; }
  QLineEdit* filter() { return m_filter; }
  QComboBox* grouping() { return m_grouping; }
  QStringList selectedRuns() const;
  void fillColumnMenu(QMenu* menu);
  QByteArray saveState() const;  // columns: which, where, how wide; order and groups
  void restoreState(const QByteArray& state);

 Q_SIGNALS:
  void compareRequested(const QStringList& runs);
  void exportRequested(const QString& run);
  void logRequested(const QString& run);
  void pageRequested(const QString& page);

 private:
  QWidget* makeControls();
  void makeTable();
  void standardColumns();
  std::vector<const RunColumn*> shownColumns() const;  // as they stand
  void readFilter();
  void remember();
  void restore();
  void showState();
  void followCurrent();
  void menu(const QPoint& place);
  void exportTable();

  Workbench* m_workbench;
  RunTable* m_model;
  RunMenu* m_runMenu;
  QTreeView* m_table;
  QLineEdit* m_filter;
  QLabel *m_mistake, *m_count, *m_nothing;
  QComboBox* m_grouping;
  // Kept over a new arrangement.
  QStringList m_selected;
  QString m_current, m_top;
  QSet<QString> m_folded;  // titles of groups
  bool m_restoring = false;
};

}  // namespace qb::views
