#pragma once
#include <QWidget>

#include "views/models/Accuracy.h"

class QComboBox;
class QLabel;
class QTimer;

namespace qb::views {

class CostPlot;
class HistogramPlot;
class ParetoPlot;
class MetricPlot;
class WindowDeltaPlot;

// What does it cost, what does it give? One figure of the shown runs, whatever evaluator it is of, by size, paired differences, by token; time and memory.
class AccuracyPage : public QWidget {
  Q_OBJECT
 public:
  explicit AccuracyPage(Selection* selection, QWidget* parent = nullptr);

 private:
  QWidget* makeControls();
  void scheduleUpdate();
  void updateData();
  void showTokens(const Accuracy& accuracy);

  Selection* m_selection;
  QTimer* m_timer;
  QComboBox* m_conditions;
  QLabel* m_missing;
  MetricPlot* m_metric;
  ParetoPlot* m_pareto;
  WindowDeltaPlot* m_windows;
  CostPlot* m_cost;
  HistogramPlot* m_tokens;
};

}  // namespace qb::views
