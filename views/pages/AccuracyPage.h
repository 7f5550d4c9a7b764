#pragma once
#include <QHash>
#include <QSet>
#include <QWidget>
#include <functional>

#include "views/models/Accuracy.h"
#include "views/models/RunAxes.h"

class QComboBox;
class QLabel;
class QTimer;

namespace qb::views {

class CostPlot;
class HistogramPlot;
class ParetoPlot;
class MetricPlot;
class ParallelPlot;
class WindowDeltaPlot;

// What does it cost, what does it give? One figure of the shown runs, whatever evaluator it is of, by size, paired differences, by token; time and memory; and
// by all that the runs' recipes differ in.
class AccuracyPage : public QWidget {
  Q_OBJECT
 public:
  explicit AccuracyPage(Selection* selection, QWidget* parent = nullptr);
  using Recipes = QHash<QString, RecipePtr>;  // by run
  // Where the recipes of runs come from; `then` is told those that could be read, later.
  void setRecipeReader(std::function<void(const QStringList& runs, std::function<void(const Recipes&)> then)> reader);

 Q_SIGNALS:
  void onlyWanted(const QStringList& runs);  // a stretch of an axis was chosen, or taken back: these are to be shown

 private:
  QWidget* makeControls();
  void scheduleUpdate();
  void updateData();
  void showTokens(const Accuracy& accuracy);
  void showParallel(const Accuracy& accuracy);
  void askForRecipes();

  Selection* m_selection;
  QTimer* m_timer;
  QComboBox* m_conditions;
  QLabel* m_missing;
  MetricPlot* m_metric;
  ParetoPlot* m_pareto;
  WindowDeltaPlot* m_windows;
  CostPlot* m_cost;
  HistogramPlot* m_tokens;
  ParallelPlot* m_parallel;
  QStringList m_compared;  // runs of m_parallel: the shown ones, and those that its stretches hid
  Recipes m_recipes;
  QSet<QString> m_asked;
  std::function<void(const QStringList&, std::function<void(const Recipes&)>)> m_reader;
};

}  // namespace qb::views
