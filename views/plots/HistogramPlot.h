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

// Places on the axis that mean something, drawn from the ground to the top and named in the legend.
struct HistogramLines {
  QString name;
  QColor colour;
  QVector<double> at;
  bool dashed = false;
};

// Distributions over one another. y: density (share of values per unit of x), so that histograms with other bins compare.
class HistogramPlot : public Plot {
  Q_OBJECT
 public:
  explicit HistogramPlot(QWidget* parent = nullptr);

  void setData(const QVector<HistogramSeries>& series, const QString& xLabel);
  const QVector<HistogramSeries>& series() const { return m_series; }
  void setLines(const QVector<HistogramLines>& lines);
  const QVector<HistogramLines>& lines() const { return m_lines; }

  PlotTable table() const override;
  QString describe(const QPointF& pixel) const override;

 protected:
  void fitView() override;
  void rebuild() override;
  void restyle(const PlotColours& colours) override;

 private:
  void restyleLines(const PlotColours& colours);
  QVector<HistogramSeries> m_series;
  QVector<HistogramLines> m_lines;
  QVector<QCPGraph*> m_graphs, m_lineGraphs;
  double m_floor = 0;
};

}  // namespace qb::views
