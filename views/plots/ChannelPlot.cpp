#include "views/plots/ChannelPlot.h"

#include <algorithm>
#include <cmath>

namespace qb::views {

ChannelPlot::ChannelPlot(QWidget* parent) : Plot(parent) {
  yAxis->setLabel(tr("|w|"));
  setLegendShown(true);
  setLogarithmic(true);
  axisRect()->setMinimumMargins(QMargins(4, 2, 10, 2));
}

double ChannelPlot::place(size_t entry) const {
  const double first = double(entry) * double(m_sizes.step), last = std::min(first + double(m_sizes.step), double(m_sizes.channels)) - 1;
  return (first + last) / 2;
}

void ChannelPlot::setData(const ChannelSizes& sizes, const QString& axis) {
  m_sizes = sizes;
  xAxis->setLabel(axis);
  std::vector<float> sorted = sizes.abs_max;
  std::sort(sorted.begin(), sorted.end());
  m_median = sorted.empty() ? 0 : 0.5 * (double(sorted[(sorted.size() - 1) / 2]) + double(sorted[sorted.size() / 2]));
  m_floor = std::numeric_limits<double>::infinity();
  for (const std::vector<float>* values : {&sizes.mean_abs, &sizes.abs_max})
    for (const float value : *values)
      if (value > 0) m_floor = std::min(m_floor, double(value));
  m_floor = std::isfinite(m_floor) ? m_floor / 2 : 1e-9;  // where channels of zeros stand
  refresh(sizes.abs_max.empty());
}

void ChannelPlot::rebuild() {
  clearGraphs();
  m_mean = m_largest = m_line = nullptr;
  if (m_sizes.abs_max.empty()) return;
  const auto add = [this](const QString& name, const std::vector<float>& values) {
    QVector<double> x, y;
    for (size_t i = 0; i < values.size(); ++i) {
      x.push_back(place(i));
      y.push_back(drawn(double(values[i]), isLogarithmic(), m_floor));
    }
    QCPGraph* graph = addGraph();
    graph->setName(name);
    graph->setData(x, y, true);
    return graph;
  };
  m_largest = add(tr("largest"), m_sizes.abs_max);
  // A vector's channels have one value each.
  if (m_sizes.mean_abs != m_sizes.abs_max) m_mean = add(tr("mean"), m_sizes.mean_abs);
  m_line = addGraph();
  m_line->setName(tr("median %1").arg(formatNumber(m_median, 3)));
  const double median = drawn(m_median, isLogarithmic(), m_floor);
  m_line->setData({0.0, double(std::max<int64_t>(1, m_sizes.channels - 1))}, {median, median}, true);
  restyle(colours());
}

void ChannelPlot::restyle(const PlotColours& look) {
  Plot::restyle(look);
  if (m_largest) m_largest->setPen(QPen(look.faint, 1));
  if (m_mean) m_mean->setPen(QPen(look.highlight, 1.4));
  if (m_line) m_line->setPen(QPen(look.text, 1.1, Qt::DashLine));
}

void ChannelPlot::fitView() {
  const double width = double(std::max<int64_t>(1, m_sizes.channels));
  xAxis->setRange(-0.02 * width, 1.02 * width);
  QVector<double> values;
  for (const std::vector<float>* sizes : {&m_sizes.mean_abs, &m_sizes.abs_max})
    for (const float value : *sizes) values.push_back(drawn(double(value), isLogarithmic(), m_floor));
  yAxis->setRange(limits(values, isLogarithmic(), true));
}

QString ChannelPlot::describe(const QPointF& pixel) const {
  if (m_sizes.abs_max.empty() || !axisRect()->rect().contains(pixel.toPoint())) return {};
  const double channel = xAxis->pixelToCoord(pixel.x());
  if (channel < -0.5 || channel >= double(m_sizes.channels) - 0.5) return {};
  const auto entry = std::min(size_t((channel + 0.5) / double(m_sizes.step)), m_sizes.abs_max.size() - 1);
  const int64_t first = int64_t(entry) * m_sizes.step, last = std::min(first + m_sizes.step, m_sizes.channels) - 1;
  const QString which = first == last ? tr("%1 %2 of %3").arg(xAxis->label()).arg(first).arg(m_sizes.channels) : tr("%1 %2 to %3 of %4").arg(xAxis->label()).arg(first).arg(last).arg(m_sizes.channels);
  const double largest = double(m_sizes.abs_max[entry]);
  QString text = which + QLatin1Char('\n') + tr("largest |w| %1").arg(formatNumber(largest));
  if (m_median > 0) text += tr(", %1 times the median").arg(formatNumber(largest / m_median, 3));
  if (m_mean) text += QLatin1Char('\n') + tr("mean |w| %1").arg(formatNumber(double(m_sizes.mean_abs[entry])));
  return text;
}

PlotTable ChannelPlot::table() const {
  PlotTable table{{tr("%1: from").arg(xAxis->label()), tr("to"), tr("mean |w|"), tr("largest |w|")}, {}};
  for (size_t i = 0; i < m_sizes.abs_max.size(); ++i) {
    const int64_t first = int64_t(i) * m_sizes.step;
    table.rows.push_back({qlonglong(first), qlonglong(std::min(first + m_sizes.step, m_sizes.channels) - 1), double(m_sizes.mean_abs[i]), double(m_sizes.abs_max[i])});
  }
  return table;
}

}  // namespace qb::views
