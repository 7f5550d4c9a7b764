#include "views/plots/OutlierPlot.h"

#include <algorithm>
#include <cmath>

namespace qb::views {

OutlierPlot::OutlierPlot(QWidget* parent) : Plot(parent) {
  setEmptyText(tr("No outlier channels were recorded for this linear."));
  xAxis->setLabel(tr("Input channel"));
  yAxis->setLabel(tr("Largest |x|"));
  axisRect()->setMinimumMargins(QMargins(4, 2, 10, 2));
}

void OutlierPlot::setData(const std::vector<OutlierChannel>& channels, int64_t inFeatures, const QColor& colour) {
  m_channels = channels;
  std::sort(m_channels.begin(), m_channels.end(), [](const OutlierChannel& a, const OutlierChannel& b) { return a.channel < b.channel; });
  m_inFeatures = inFeatures;
  m_colour = colour;
  m_median = 0;
  for (const OutlierChannel& channel : m_channels)
    if (channel.ratio > 0) m_median = channel.abs_max / channel.ratio;
  refresh(m_channels.empty());
}

void OutlierPlot::rebuild() {
  clearGraphs();
  for (QCPItemText* label : m_labels) removeItem(label);
  m_labels.clear();
  m_stems = m_line = nullptr;
  if (m_channels.empty()) return;
  QVector<double> x, y;
  double floor = m_median > 0 ? m_median / 2 : std::numeric_limits<double>::min();
  for (const OutlierChannel& channel : m_channels) {
    x.push_back(double(channel.channel));
    y.push_back(drawn(channel.abs_max, isLogarithmic(), floor));
  }
  m_stems = addGraph();
  m_stems->setName(tr("Channel"));
  m_stems->setLineStyle(QCPGraph::lsImpulse);
  m_stems->setData(x, y, true);
  if (m_median > 0) {
    m_line = addGraph();
    m_line->setName(tr("Median of all channels: %1").arg(formatNumber(m_median, 3)));
    m_line->setData({0.0, double(std::max<int64_t>(1, m_inFeatures - 1))}, {m_median, m_median}, true);
  }
  // The three largest by ratio are named; more would cover each other.
  std::vector<OutlierChannel> largest = m_channels;
  std::sort(largest.begin(), largest.end(), [](const OutlierChannel& a, const OutlierChannel& b) { return a.ratio > b.ratio; });
  double last = -1;
  for (size_t i = 0; i < std::min<size_t>(3, largest.size()); ++i) {
    const double at = double(largest[i].channel);
    if (last >= 0 && std::abs(at - last) < double(m_inFeatures) * 0.25) continue;
    last = at;
    auto* label = new QCPItemText(this);
    label->setSelectable(false);
    label->setText(tr("%1× at %2").arg(formatNumber(largest[i].ratio, 3)).arg(largest[i].channel));
    const bool right = at > double(m_inFeatures) * 0.7;
    label->setPositionAlignment(Qt::AlignVCenter | (right ? Qt::AlignRight : Qt::AlignLeft));
    label->position->setCoords(at, largest[i].abs_max);
    label->setPadding(QMargins(7, 0, 7, 0));
    m_labels.push_back(label);
  }
  restyle(colours());
}

void OutlierPlot::restyle(const PlotColours& look) {
  Plot::restyle(look);
  if (m_stems) {
    m_stems->setPen(QPen(m_colour, 1.4));
    m_stems->setScatterStyle(markerStyle(0, m_colour, 5));
  }
  if (m_line) m_line->setPen(QPen(look.faint, 1.2, Qt::DashLine));
  for (QCPItemText* label : m_labels) {
    label->setFont(smallFont());
    label->setColor(look.text);
  }
}

void OutlierPlot::fitView() {
  const double width = double(std::max<int64_t>(1, m_inFeatures));
  xAxis->setRange(-0.02 * width, 1.02 * width);
  QVector<double> values{m_median};
  for (const OutlierChannel& channel : m_channels) values.push_back(channel.abs_max);
  QCPRange range = limits(values, isLogarithmic(), true);
  if (isLogarithmic()) range.lower = std::min(range.lower, m_median > 0 ? m_median / 2 : range.lower);
  else range.upper *= 1.06;
  yAxis->setRange(range);
}

QString OutlierPlot::describe(const QPointF& pixel) const {
  const OutlierChannel* nearest = nullptr;
  double best = 12;
  for (const OutlierChannel& channel : m_channels) {
    const double distance = std::abs(xAxis->coordToPixel(double(channel.channel)) - pixel.x());
    if (distance < best) {
      best = distance;
      nearest = &channel;
    }
  }
  if (!nearest || !axisRect()->rect().contains(pixel.toPoint())) return {};
  return tr("Input channel %1 of %2\nlargest |x| %3, %4 times the median of all channels")
      .arg(nearest->channel)
      .arg(m_inFeatures)
      .arg(formatNumber(nearest->abs_max), formatNumber(nearest->ratio, 3));
}

PlotTable OutlierPlot::table() const {
  PlotTable table{{tr("input channel"), tr("abs max"), tr("ratio to median (1)")}, {}};
  for (const OutlierChannel& channel : m_channels) table.rows.push_back({qlonglong(channel.channel), channel.abs_max, channel.ratio});
  return table;
}

}  // namespace qb::views
