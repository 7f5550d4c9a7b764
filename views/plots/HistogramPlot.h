#pragma once
#include "core/measure/report.h"
#include "views/plots/Plot.h"

namespace qb::views {

// One distribution of a HistogramPlot.
struct HistogramSeries {
  QString name;
  QColor colour;
  Histogram histogram;
  bool dashed = false;
  bool filled = false;
  int marker = -1;  // shape that stands on the line here and there; -1: none
  bool folded = false;  // one of too many for colours
};

// Distributions over one another. y: density (share of values per unit of x), so that histograms with other bins compare.
class HistogramPlot : public Plot {
  Q_OBJECT
 public:
  explicit HistogramPlot(QWidget* parent = nullptr);

  void setData(const QVector<HistogramSeries>& series, const QString& xLabel);
  const QVector<HistogramSeries>& series() const { return m_series; }

  PlotTable table() const override;
  QString describe(const QPointF& pixel) const override;

 protected:
  void fitView() override;
  void rebuild() override;
  void restyle(const PlotColours& colours) override;

 private:
  QVector<HistogramSeries> m_series;
  QVector<QCPGraph*> m_graphs;
  double m_floor = 0;
};

}  // namespace qb::views
