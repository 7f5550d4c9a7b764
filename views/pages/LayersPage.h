#pragma once
#include <QWidget>

#include "views/models/LinearErrors.h"

class QAction;
class QComboBox;
class QLabel;
class QLineEdit;
class QSpinBox;
class QStackedWidget;
class QTableView;
class QTimer;
class QToolButton;

namespace qb::views {

class HeatMapPlot;
class HotSpotFilter;
class HotSpotModel;
class LinearErrorsPlot;
class RunsHeatPlot;

// Where does it hurt? Errors of every linear across runs, as curves or as a heat map, a heat map of the current run, its worst linears.
class LayersPage : public QWidget {
  Q_OBJECT
 public:
  explicit LayersPage(Selection* selection, QWidget* parent = nullptr);

 Q_SIGNALS:
  void bitsWanted(const qb::views::LinearKey& linear, int bits);  // 0: it stays float

 private:
  QWidget* makeControls();
  QWidget* makeHotSpots();
  void scheduleUpdate();
  void updateData();
  void updateOrder();
  void showCurrentLinear();
  void metricChosen();
  void chooseView();

  Selection* m_selection;
  LinearErrors m_errors;
  QTimer* m_timer;
  QComboBox *m_metric, *m_view, *m_order, *m_subset;
  QToolButton *m_log, *m_difference;
  QLabel* m_hotTitle;
  QSpinBox* m_count;
  QLineEdit* m_threshold;
  QTableView* m_table;
  QStackedWidget* m_views;
  LinearErrorsPlot* m_plot;
  RunsHeatPlot* m_runs;
  HeatMapPlot* m_heat;
  HotSpotModel* m_hotSpots;
  HotSpotFilter* m_filter;
};

}  // namespace qb::views
