#pragma once
#include <QWidget>

#include "views/models/Accuracy.h"

class QComboBox;
class QLabel;
class QTimer;

namespace qb::views {

class CostPlot;
class ParetoPlot;
class PerplexityPlot;
class WindowDeltaPlot;

// What does it cost, what does it give? Perplexity, size, paired differences, time and memory of the shown runs.
class AccuracyPage : public QWidget {
  Q_OBJECT
 public:
  explicit AccuracyPage(Selection* selection, QWidget* parent = nullptr);

 private:
  QWidget* makeControls();
  void scheduleUpdate();
  void updateData();

  Selection* m_selection;
  QTimer* m_timer;
  QComboBox* m_conditions;
  QLabel* m_missing;
  PerplexityPlot* m_perplexity;
  ParetoPlot* m_pareto;
  WindowDeltaPlot* m_windows;
  CostPlot* m_cost;
};

}  // namespace qb::views
