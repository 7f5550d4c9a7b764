#include "views/plots/HistogramPlot.h"

#include <cmath>
#include <numeric>

namespace qb::views {
namespace {

double binWidth(const Histogram& histogram) {
  return histogram.counts.empty() ? 0 : (histogram.high - histogram.low) / double(histogram.counts.size());
}

double total(const Histogram& histogram) {
  return double(std::accumulate(histogram.counts.begin(), histogram.counts.end(), int64_t(0)) + histogram.below + histogram.above);
}

// Share of all values, those outside the range included, per unit of x.
double density(const Histogram& histogram, size_t bin, double all) {
  const double width = binWidth(histogram);
  return width > 0 && all > 0 ? double(histogram.counts[bin]) / all / width : 0;
}

}  // namespace

HistogramPlot::HistogramPlot(QWidget* parent) : Plot(parent) {
  yAxis->setLabel(tr("Density (1/unit)"));
  setLegendShown(true);
  setLogarithmic(true);
  axisRect()->setMinimumMargins(QMargins(4, 2, 10, 2));
}

void HistogramPlot::setData(const QVector<HistogramSeries>& series, const QString& xLabel) {
  m_series.clear();
  for (const HistogramSeries& each : series)
    if (!each.histogram.empty() && total(each.histogram) > 0) m_series.push_back(each);
  xAxis->setLabel(xLabel);
  refresh(m_series.isEmpty());
}

void HistogramPlot::setLines(const QVector<HistogramLines>& lines) {
  m_lines = lines;
  refresh(m_series.isEmpty());
}

void HistogramPlot::rebuild() {
  clearGraphs();
  m_graphs.clear();
  m_lineGraphs.clear();
  // Empty bins stand half a value below the rarest one.
  m_floor = std::numeric_limits<double>::infinity();
  for (const HistogramSeries& series : m_series) {
    const double width = binWidth(series.histogram);
    if (width > 0) m_floor = std::min(m_floor, 0.5 / total(series.histogram) / width);
  }
  if (!std::isfinite(m_floor)) m_floor = 1e-9;
  QVector<QCPGraph*> folded;
  for (const HistogramSeries& series : m_series) {
    const Histogram& histogram = series.histogram;
    const double width = binWidth(histogram), all = total(histogram), ground = isLogarithmic() ? m_floor : 0;
    QVector<double> x, y;
    // Steps from edge to edge, closed down to the ground at both ends.
    const double room = width > 0 ? width : 1e-12;
    x.push_back(histogram.low);
    y.push_back(ground);
    for (size_t bin = 0; bin < histogram.counts.size(); ++bin) {
      x.push_back(histogram.low + double(bin) * room);
      y.push_back(drawn(density(histogram, bin, all), isLogarithmic(), m_floor));
    }
    x.push_back(histogram.high);
    y.push_back(ground);
    QCPGraph* graph = addGraph();
    graph->setName(series.name);
    graph->setLineStyle(QCPGraph::lsStepLeft);
    graph->setData(x, y, true);
    m_graphs.push_back(graph);
    if (series.folded) folded.push_back(graph);
  }
  fold(folded);
  // Far above whatever is drawn.
  double top = 1;
  for (const HistogramSeries& series : m_series)
    for (size_t bin = 0; bin < series.histogram.counts.size(); ++bin) top = std::max(top, density(series.histogram, bin, total(series.histogram)));
  for (const HistogramLines& lines : m_lines) {
    if (m_series.isEmpty()) break;
    QCPGraph* graph = addGraph();
    graph->setName(lines.name);
    graph->setAdaptiveSampling(false);
    for (const double x : lines.at)
      for (const double y : {isLogarithmic() ? m_floor : 0.0, top * 100, std::nan("")}) graph->addData(x, y);
    m_lineGraphs.push_back(graph);
  }
  restyle(colours());
}

void HistogramPlot::restyle(const PlotColours& look) {
  Plot::restyle(look);
  restyleLines(look);
  for (int i = 0; i < int(m_graphs.size()); ++i) {
    const HistogramSeries& series = m_series[i];
    if (series.folded) {
      m_graphs[i]->setPen(QPen(foldedColour(), 1));
      continue;
    }
    // An invalid colour stands for the float model, which has the colour of text.
    const QColor colour = series.colour.isValid() ? series.colour : look.faint;
    m_graphs[i]->setPen(QPen(colour, 1.4, series.dashed ? Qt::DashLine : Qt::SolidLine));
    if (series.marker >= 0) {
      m_graphs[i]->setScatterStyle(markerStyle(series.marker, colour, 5));
      m_graphs[i]->setScatterSkip(int(series.histogram.counts.size()) / 8);
    }
    QColor fill = colour;
    fill.setAlphaF(0.16f);
    m_graphs[i]->setBrush(series.filled ? QBrush(fill) : QBrush(Qt::NoBrush));
  }
}

void HistogramPlot::restyleLines(const PlotColours& look) {
  for (int i = 0; i < int(m_lineGraphs.size()); ++i) m_lineGraphs[i]->setPen(QPen(m_lines[i].colour.isValid() ? m_lines[i].colour : look.text, 1.2, m_lines[i].dashed ? Qt::DotLine : Qt::SolidLine));
}

void HistogramPlot::fitView() {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  QVector<double> values;
  for (const HistogramSeries& series : m_series) {
    low = std::min(low, series.histogram.low);
    high = std::max(high, series.histogram.high);
    const double all = total(series.histogram);
    for (size_t bin = 0; bin < series.histogram.counts.size(); ++bin) values.push_back(density(series.histogram, bin, all));
  }
  if (!(high > low)) {
    if (!std::isfinite(low)) low = high = 0;
    low -= 0.5;
    high += 0.5;
  }
  xAxis->setRange(low - 0.02 * (high - low), high + 0.02 * (high - low));
  QCPRange range = limits(values, isLogarithmic(), true);
  if (isLogarithmic()) range.lower = m_floor;
  yAxis->setRange(range);
}

QString HistogramPlot::describe(const QPointF& pixel) const {
  if (!axisRect()->rect().contains(pixel.toPoint())) return {};
  const double x = xAxis->pixelToCoord(pixel.x());
  QStringList lines;
  int untold = 0;
  for (const HistogramLines& line : m_lines)
    for (const double at : line.at)
      if (std::abs(xAxis->coordToPixel(at) - pixel.x()) < 4) lines.push_back(tr("%1: %2").arg(line.name, formatNumber(at)));
  for (const HistogramSeries& series : m_series) {
    if (series.folded) {
      ++untold;
      continue;
    }
    const Histogram& histogram = series.histogram;
    const double width = binWidth(histogram);
    const double all = total(histogram);
    if (width > 0 && x >= histogram.low && x < histogram.high) {
      const auto bin = std::min(size_t((x - histogram.low) / width), histogram.counts.size() - 1);
      const double low = histogram.low + double(bin) * width;
      lines.push_back(tr("%1: %2 values (%3 %) from %4 to %5")
                          .arg(series.name, QLocale().toString(qlonglong(histogram.counts[bin])),
                               formatNumber(100.0 * double(histogram.counts[bin]) / all, 3), formatNumber(low, 3), formatNumber(low + width, 3)));
    }
    if (histogram.below + histogram.above > 0)
      lines.push_back(tr("%1: %2 values below, %3 above this range")
                          .arg(series.name, QLocale().toString(qlonglong(histogram.below)), QLocale().toString(qlonglong(histogram.above))));
  }
  if (untold > 0) lines.push_back(tr("and %1 other runs, in grey").arg(untold));
  return lines.join(QLatin1Char('\n'));
}

PlotTable HistogramPlot::table() const {
  PlotTable table{{tr("series"), tr("%1: from").arg(xAxis->label()), tr("to"), tr("count"), tr("density (1/unit)")}, {}};
  for (const HistogramSeries& series : m_series) {
    const Histogram& histogram = series.histogram;
    const double width = binWidth(histogram), all = total(histogram);
    if (histogram.below > 0) table.rows.push_back({series.name, QVariant(), histogram.low, qlonglong(histogram.below), QVariant()});
    for (size_t bin = 0; bin < histogram.counts.size(); ++bin)
      table.rows.push_back({series.name, histogram.low + double(bin) * width, histogram.low + double(bin + 1) * width,
                            qlonglong(histogram.counts[bin]), density(histogram, bin, all)});
    if (histogram.above > 0) table.rows.push_back({series.name, histogram.high, QVariant(), qlonglong(histogram.above), QVariant()});
  }
  for (const HistogramLines& lines : m_lines)
    for (const double at : lines.at) table.rows.push_back({lines.name, at, at, QVariant(), QVariant()});
  return table;
}

}  // namespace qb::views
