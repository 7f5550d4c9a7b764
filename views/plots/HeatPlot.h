#pragma once
#include "views/models/LinearErrors.h"
#include "views/plots/Plot.h"

namespace qb::views {

// A grid of cells coloured by a metric, or by its difference to the baseline, beside the bar that says what the colours mean.
class HeatPlot : public Plot {
  Q_OBJECT
 public:
  explicit HeatPlot(QWidget* parent = nullptr);

  void setDifference(bool on) { m_difference->setChecked(on); }
  bool isDifference() const { return m_difference->isChecked(); }
  QAction* differenceAction() const { return m_difference; }

 protected:
  QCPAxis* valueAxis() const override { return m_scale->axis(); }
  void restyle(const PlotColours& colours) override;

  // What the colours stand for: the range of `values`, which may be more than those of the cells.
  void setColours(const QVector<double>& values, Metric metric);
  void setColours(double low, double high, const QString& label, bool brightIsLow);
  void clearCells(int columns, int rows);
  void setCell(int column, int row, double value);  // after setColours
  QColor colourOf(double value) const;
  void frameCell(int column, int row);  // below 0: none
  QString describeValue(const QString& run, Metric metric, double value) const;

  QSharedPointer<PlaceTicker> m_columnTicker, m_rowTicker;

 private:
  QAction *m_difference, *m_cividis;
  QCPColorMap* m_map;
  QCPColorScale* m_scale;
  QCPItemRect* m_frame;
  double m_low = 0;  // where zeros stand on a logarithmic bar
};

}  // namespace qb::views
