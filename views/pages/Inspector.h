#pragma once
#include <QWidget>

#include "views/models/Selection.h"

class QAbstractItemModel;
class QLabel;
class QTableView;
class QTimer;

namespace qb::views {

class FactsModel;
class HistogramPlot;
class LinearNumbersModel;
class OutlierPlot;

// What is selected: the current linear in the current run and beside the shown ones; below it the facts of the run.
class Inspector : public QWidget {
  Q_OBJECT
 public:
  explicit Inspector(Selection* selection, QWidget* parent = nullptr);

 protected:
  bool eventFilter(QObject* object, QEvent* event) override;

 private:
  QTableView* makeTable(QAbstractItemModel* model, const QString& name);
  void fitTable(QTableView* table);
  void fitHistograms();
  void scheduleUpdate();
  void updateData();
  void updateLinear(const RunEntry* run);

  Selection* m_selection;
  QTimer* m_timer;
  QLabel *m_hint, *m_linearTitle, *m_linearRun, *m_runTitle;
  QWidget *m_content, *m_linearBox, *m_runBox;
  FactsModel *m_linearFacts, *m_runFacts;
  LinearNumbersModel* m_numbers;
  QTableView *m_linearFactsTable, *m_runFactsTable, *m_numbersTable;
  HistogramPlot *m_weights, *m_weightError, *m_outputError, *m_input;
  OutlierPlot* m_outliers;
};

}  // namespace qb::views
