#pragma once
#include <QDialog>
#include <QPushButton>

#include "views/jobs/Services.h"
#include "views/models/SweepTable.h"

class QLabel;
class QProgressBar;
class QPlainTextEdit;
class QStackedWidget;
class QTableView;

namespace qb::views {

class NoticeBar;
class Workbench;

// A sweep before it starts: its recipes with what each will take and what is done, chosen ones go into the queue. The file may grow:
// "Look again" reads it anew.
class SweepDialog : public QDialog {
  Q_OBJECT
 public:
  SweepDialog(Workbench* workbench, const QString& path, QWidget* parent = nullptr);
  ~SweepDialog() override;
  const QString& path() const { return m_path; }
  void survey();

  SweepTable* table() { return &m_table; }
  QTableView* view() { return m_view; }
  QPushButton* queueButton() { return m_queue; }
  NoticeBar* notices() { return m_notices; }
  QString omissions() const;

 private:
  void showSurvey(SweepSurvey&& survey);
  void refresh();
  void enqueue();
  QString slot() const { return QStringLiteral("sweep:") + m_path; }

  Workbench* m_workbench;
  QString m_path, m_name;
  SweepTable m_table;
  Sweep m_sweep;

  QLabel *m_title, *m_facts, *m_waiting, *m_summary, *m_omittedTitle;
  QProgressBar* m_bar;
  QStackedWidget* m_pages;
  QTableView* m_view;
  QPlainTextEdit* m_omittedText;
  NoticeBar* m_notices;
  QPushButton *m_all, *m_none, *m_again, *m_queue, *m_close;
};

}  // namespace qb::views
