#include "views/plots/HeatPlot.h"

#include <cmath>

namespace qb::views {

HeatPlot::HeatPlot(QWidget* parent) : Plot(parent), m_columnTicker(new PlaceTicker), m_rowTicker(new PlaceTicker) {
  m_difference = new QAction(tr("&Difference to the baseline"), this);
  m_difference->setCheckable(true);
  addAction(m_difference);
  connect(m_difference, &QAction::toggled, this, [this] { refresh(isEmpty()); });
  m_cividis = new QAction(tr("C&ividis instead of viridis colours"), this);
  m_cividis->setCheckable(true);
  addAction(m_cividis);
  connect(m_cividis, &QAction::toggled, this, [this] { refresh(isEmpty()); });

  m_map = new QCPColorMap(xAxis, yAxis);
  m_map->setInterpolate(false);
  m_map->setTightBoundary(false);
  m_map->setAntialiased(false);
  m_scale = new QCPColorScale(this);
  plotLayout()->addElement(plotLayout()->rowCount() - 1, 1, m_scale);
  m_scale->setType(QCPAxis::atRight);
  m_scale->setBarWidth(12);
  m_map->setColorScale(m_scale);
  auto* margins = new QCPMarginGroup(this);
  axisRect()->setMarginGroup(QCP::msTop | QCP::msBottom, margins);
  m_scale->setMarginGroup(QCP::msTop | QCP::msBottom, margins);
  m_scale->setRangeDrag(false);
  m_scale->setRangeZoom(false);
  axisRect()->setMinimumMargins(QMargins(4, 6, 2, 4));
  axisRect()->setupFullAxesBox(false);
  axisRect()->setBackground(Qt::NoBrush);
  xAxis->setTicker(m_columnTicker);
  yAxis->setTicker(m_rowTicker);
  yAxis->setRangeReversed(true);
  xAxis->grid()->setVisible(false);
  yAxis->grid()->setVisible(false);
  m_frame = new QCPItemRect(this);
  m_frame->setVisible(false);
  m_frame->setSelectable(false);
  legendAction()->setVisible(false);
  legendAction()->setEnabled(false);
}

void HeatPlot::setColours(const QVector<double>& values, Metric metric) {
  const bool logarithmic = isLogarithmic() && !isDifference();
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const double value : values) {
    if (!std::isfinite(value) || (logarithmic && value <= 0)) continue;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  if (low > high) low = logarithmic ? 0.1 : 0, high = 1;
  if (isDifference()) {
    high = std::max(std::abs(low), std::abs(high));
    low = -high;
  }
  if (!(high > low)) high = low > 0 ? low * 1.01 : low + 1;
  m_low = low;

  QCPColorGradient gradient = isDifference() ? divergingGradient(colours().dark) : heatGradient(m_cividis->isChecked() ? HeatMap::Cividis : HeatMap::Viridis);
  // Bright always means bad.
  if (metricHigherIsBetter(metric)) gradient = gradient.inverted();
  m_scale->setGradient(gradient);
  m_scale->setDataScaleType(logarithmic ? QCPAxis::stLogarithmic : QCPAxis::stLinear);
  m_scale->axis()->setTicker(logarithmic ? QSharedPointer<QCPAxisTicker>(new LogTicker) : QSharedPointer<QCPAxisTicker>(new QCPAxisTicker));
  m_scale->axis()->setNumberFormat(QStringLiteral("gbc"));
  m_scale->axis()->setNumberPrecision(3);
  m_scale->setDataRange(QCPRange(low, high));
  m_scale->setLabel(isDifference() ? tr("Δ %1").arg(metricLabel(metric)) : metricLabel(metric));
}

void HeatPlot::setColours(double low, double high, const QString& label, bool brightIsLow) {
  const QCPColorGradient gradient = heatGradient(m_cividis->isChecked() ? HeatMap::Cividis : HeatMap::Viridis);
  m_low = low;
  m_scale->setGradient(brightIsLow ? gradient.inverted() : gradient);
  m_scale->setDataScaleType(QCPAxis::stLinear);
  m_scale->axis()->setTicker(QSharedPointer<QCPAxisTicker>(new QCPAxisTicker));
  m_scale->axis()->setNumberFormat(QStringLiteral("gbc"));
  m_scale->axis()->setNumberPrecision(3);
  m_scale->setDataRange(QCPRange(low, high));
  m_scale->setLabel(label);
}

QColor HeatPlot::colourOf(double value) const {
  QCPColorGradient gradient = m_scale->gradient();
  return QColor::fromRgba(gradient.color(value, m_scale->dataRange()));
}

void HeatPlot::clearCells(int columns, int rows) {
  m_map->data()->setSize(std::max(1, columns), std::max(1, rows));
  m_map->data()->setRange(QCPRange(0, columns - 1), QCPRange(0, rows - 1));
  if (columns <= 1) m_map->data()->setKeyRange(QCPRange(-0.5, 0.5));
  if (rows <= 1) m_map->data()->setValueRange(QCPRange(-0.5, 0.5));
  m_map->data()->fill(std::nan(""));
}

void HeatPlot::setCell(int column, int row, double value) {
  if (!std::isfinite(value)) return;
  m_map->data()->setCell(column, row, isLogarithmic() && !isDifference() && value <= 0 ? m_low : value);
}

void HeatPlot::restyle(const PlotColours& look) {
  Plot::restyle(look);
  QCPAxis* axis = m_scale->axis();
  axis->setBasePen(QPen(look.faint, 1));
  axis->setTickPen(QPen(look.faint, 1));
  axis->setSubTickPen(Qt::NoPen);
  axis->setTickLabelColor(look.text);
  axis->setLabelColor(look.text);
  axis->setTickLabelFont(smallFont());
  axis->setLabelFont(smallFont());
  m_frame->setPen(QPen(look.text, 2));
  m_frame->setBrush(Qt::NoBrush);
}

void HeatPlot::frameCell(int column, int row) {
  m_frame->setVisible(column >= 0 && row >= 0);
  if (!m_frame->visible()) return;
  m_frame->topLeft->setCoords(column - 0.5, row - 0.5);
  m_frame->bottomRight->setCoords(column + 0.5, row + 0.5);
}

QString HeatPlot::describeValue(const QString& run, Metric metric, double value) const {
  const QString number = std::isnan(value) ? tr("not measured") : formatWithUnit(value, metricUnit(metric));
  return tr("%1: %2 %3").arg(run, isDifference() ? tr("Δ %1 to the baseline").arg(metricTitle(metric)) : metricTitle(metric), number);
}

}  // namespace qb::views
