#pragma once
#include <QWidget>

#include "views/Workbench.h"
#include "views/models/TextLikeness.h"

class QComboBox;
class QLabel;
class QPlainTextEdit;
class QPushButton;
class QTableView;
class QTimer;

namespace qb::views {

class HistogramPlot;
class RankPlot;

// Is my calibration text like my use? The recipe's calibration text beside its evaluation texts, and beside files that are dropped here.
class DataPage : public QWidget {
  Q_OBJECT
 public:
  explicit DataPage(Workbench* workbench, QWidget* parent = nullptr);
  const TextComparisonPtr& comparison() const { return m_comparison; }
  void addFiles(const QStringList& paths);

 protected:
  void showEvent(QShowEvent* event) override;
  void dragEnterEvent(QDragEnterEvent* event) override;
  void dropEvent(QDropEvent* event) override;

 private:
  QWidget* makeHead();
  QWidget* makeTables();
  QTableView* makeTable(TokenShiftModel* model, const QString& name);
  void compare();            // anew where the recipe's texts changed, and only while it is seen
  void showComparison();
  void showText();           // that is chosen, beside the calibration text
  void showState(const QString& text, bool busy);

  Workbench* m_workbench;
  QTimer* m_timer;
  QStringList m_files;
  QString m_compared;        // what m_comparison is of, or what is being read
  TextComparisonPtr m_comparison;
  TokenShiftModel *m_missing, *m_surplus;
  QComboBox* m_text;
  QPushButton *m_add, *m_forget, *m_stop;
  QLabel *m_state, *m_title, *m_verdict;
  QWidget* m_content;
  RankPlot* m_ranks;
  HistogramPlot* m_lengths;
  QPlainTextEdit* m_shared;
  QLabel* m_sharedTitle;
};

}  // namespace qb::views
