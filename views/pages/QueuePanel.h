#pragma once
#include <QWidget>

class QLabel;
class QPlainTextEdit;
class QTableView;

namespace qb::views {

class JobList;
class RunQueue;

// The queue: each job a row with its stage, progress, time left and memory, buttons to pause, stop and resume; beside it the
// log of the chosen job.
class QueuePanel : public QWidget {
  Q_OBJECT
 public:
  explicit QueuePanel(RunQueue* queue, QWidget* parent = nullptr);
  QTableView* table() { return m_table; }
  int currentJob() const;  // 0: none

 Q_SIGNALS:
  void exportRequested(int job);  // to be looked at

 private:
  void addButtons(int row);
  void showLog();
  void showEmpty();
  void menu(const QPoint& place);

  RunQueue* m_queue;
  JobList* m_jobs;
  QTableView* m_table;
  QPlainTextEdit* m_log;
  QLabel* m_none;
};

}  // namespace qb::views
