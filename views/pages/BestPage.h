#pragma once
#include <QWidget>

#include "views/Workbench.h"
#include "views/models/Candidates.h"

class QComboBox;
class QDoubleSpinBox;
class QLabel;
class QPushButton;
class QTableView;
class QTextBrowser;
class QTimer;

namespace qb::views {

class NoticeBar;
class ParetoPlot;

// Which recipe do I take home? Asks for hardware, budget and data; shows the runs that no other beats, which of them and why, and what the
// paper's rule still asks for; writes the recipe with its evidence.
class BestPage : public QWidget {
  Q_OBJECT
 public:
  explicit BestPage(Workbench* workbench, BestChooser chooser = chooseBest, QWidget* parent = nullptr);

  CandidateTable* candidates() { return m_candidates; }
  NoticeBar* notices() { return m_notices; }
  // Format: "ours", or one of export_targets(), of the candidate that is chosen in the table.
  void writeRecipe(const QString& path, const QString& format);

 Q_SIGNALS:
  void exportRequested(const QString& run);
  void pageRequested(const QString& name);

 protected:
  void showEvent(QShowEvent* event) override;

 private:
  QWidget* makeForm();
  QWidget* makeHead();
  QWidget* makeTable();
  QWidget* makeMissing();
  void askAgain();       // soon, while it is seen
  void ask();
  BestQuestion question() const;
  void showAnswer(const BestAnswerPtr& answer);
  void showState(const QString& text, bool busy = false);
  void showCandidate();  // that is chosen in the table
  void followSelection();
  void fillMissing();
  void queueMissing();
  void askWhereToWrite();
  QString run() const;   // that is chosen in the table; empty: none

  Workbench* m_workbench;
  BestChooser m_choose;
  QTimer* m_timer;
  NoticeBar* m_notices;
  QComboBox *m_hardware, *m_engine, *m_quality, *m_calibration;
  QDoubleSpinBox *m_batch, *m_context, *m_bits, *m_size, *m_decode, *m_prefill;
  QWidget* m_content;
  QLabel *m_state, *m_title, *m_verdict, *m_standing;
  QPushButton *m_use, *m_write, *m_export, *m_queue, *m_stop;
  QTableView* m_table;
  CandidateTable* m_candidates;
  ParetoPlot* m_plot;
  QLabel* m_missingTitle;
  QTextBrowser* m_missing;
  BestAnswerPtr m_answer;
  QString m_asked;       // what m_answer, or what is under way, is the answer to
  bool m_filling = false;
};

}  // namespace qb::views
