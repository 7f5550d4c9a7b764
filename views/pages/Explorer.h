#pragma once
#include <QWidget>

class QComboBox;
class QLabel;
class QLineEdit;
class QTreeView;
class QToolButton;
class QTableView;

namespace qb::views {

class ModelFilter;
class RunFilter;
class RunMenu;
class Workbench;

// Left side: the open models with a search, and below them the runs of the workspace.
class Explorer : public QWidget {
  Q_OBJECT
 public:
  explicit Explorer(Workbench* workbench, QWidget* parent = nullptr);

  QTreeView* modelView() { return m_tree; }
  QTableView* runView() { return m_runs; }
  QComboBox* modelChoice() { return m_model; }
  QStringList selectedRuns() const;
  void focusSearch();

 Q_SIGNALS:
  void openModelRequested();
  void compareRequested(const QStringList& runs);
  void exportRequested(const QString& run);
  void logRequested(const QString& run);
  void pageRequested(const QString& page);
  void tensorChosen();  // by the user, in the tree

 private:
  QWidget* makeModels();
  QWidget* makeRuns();
  void search(const QString& text);
  void modelMenu(const QPoint& place);
  void runMenu(const QPoint& place);
  void followSelection();
  void followModel();
  void showModels();
  void showEmpty();

  Workbench* m_workbench;
  QLineEdit *m_search, *m_searchRuns;
  QTreeView* m_tree;
  ModelFilter* m_filter;
  QTableView* m_runs;
  RunFilter* m_sorted;
  RunMenu* m_runMenu;
  QComboBox* m_model;
  QLabel *m_noModels, *m_noneFound, *m_noRuns, *m_noRunFound, *m_facts;
};

}  // namespace qb::views
