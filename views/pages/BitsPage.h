#pragma once
#include <QPointer>
#include <QWidget>
#include <optional>

#include "views/Workbench.h"
#include "core/recipe/allocation.h"
#include "views/models/Sensitivities.h"

class QComboBox;
class QDoubleSpinBox;
class QLabel;
class QProgressBar;
class QPushButton;

namespace qb::views {

class BitStripPlot;
class TornadoPlot;

// Where do bits pay? How sensitive each linear of the current model is, by a survey that the workspace keeps; and which bits it has in the
// recipe or in a run, to be changed by hand or by the best assignment under a budget, and written into the recipe.
class BitsPage : public QWidget {
  Q_OBJECT
 public:
  explicit BitsPage(Workbench* workbench, QWidget* parent = nullptr);

  const BitPlan& plan() const { return m_plan; }
  SensitivityPtr survey() const;
  void giveBits(int linear, const std::optional<QuantSpec>& weights);
  void optimise();
  bool writeIntoRecipe();
  void startSurvey();        // asks for its settings

 private:
  QWidget* makeSurveyBar();
  QWidget* makeFigures();
  QWidget* makeBudget();
  void loadSurveys();
  void showSurveys();
  void showBars();
  void followJob();
  void fillSources();
  void loadPlan();           // of the chosen source, without what was changed by hand
  void setPlan(BitPlan plan, const Scheme& scheme);
  void showPlan();
  void showTotals();
  void chooseBits(int linear, const QPoint& place);
  std::vector<QuantSpec> choicesFor(const PlannedLinear& linear) const;
  void tell(const QString& problem);  // beside the buttons; empty: all is well
  bool isEdited() const;
  Figure figure() const;
  ModelPtr model() const;

  Workbench* m_workbench;
  std::vector<StoredSensitivity> m_surveys;
  QString m_wantedFile;      // to be chosen when it is loaded
  BitPlan m_plan, m_before;
  Scheme m_scheme;           // that the plan is of
  QString m_source;          // run id; empty: the recipe
  std::optional<AllocationTotal> m_uniform;  // best scheme for all within what was optimised for
  QString m_key;             // model that surveys are loaded of

  QComboBox *m_survey, *m_figure, *m_candidate, *m_sources, *m_unit;
  QLabel *m_state, *m_correlations, *m_totals, *m_problem;
  QProgressBar* m_progress;
  QPushButton *m_start, *m_stop, *m_optimise, *m_back, *m_write;
  QDoubleSpinBox* m_budget;
  TornadoPlot* m_tornado;
  BitStripPlot* m_strip;
};

}  // namespace qb::views
