#include "views/plots/WindowDeltaPlot.h"

#include <cmath>
#include <limits>

namespace qb::views {

WindowDeltaPlot::WindowDeltaPlot(QWidget* parent) : Plot(parent) {
  setEmptyText(tr("Choose a baseline in the list of runs, or evaluate the float model, to compare window by window."));
  auto ticker = QSharedPointer<QCPAxisTickerFixed>::create();
  ticker->setTickStep(1);
  ticker->setScaleStrategy(QCPAxisTickerFixed::ssMultiples);
  xAxis->setTicker(ticker);
  m_zero = new QCPItemStraightLine(this);
  m_zero->point1->setCoords(0, 0);
  m_zero->point2->setCoords(1, 0);
  m_zero->setSelectable(false);
  axisRect()->setMinimumMargins(QMargins(4, 4, 12, 4));
  // Differences have both signs.
  logAction()->setVisible(false);
  logAction()->setEnabled(false);
  setLegendShown(true);
}

void WindowDeltaPlot::setData(const Accuracy& accuracy) {
  m_accuracy = accuracy;
  m_series.clear();
  xAxis->setLabel(accuracy.byItem ? tr("Item of the task") : tr("Window of the text"));
  yAxis->setLabel(tr("Δ %1").arg(accuracy.pairedTitle).trimmed());
  const EvaluationResult* reference = accuracy.baseline ? accuracy.baseline->result : accuracy.floatModel;
  m_reference = accuracy.baseline ? accuracy.baseline->name : tr("the %1").arg(accuracy.floatName);
  if (reference)
    for (const Accuracy::Run& run : accuracy.runs) {
      if (!run.result || (accuracy.baseline && run.id == accuracy.baseline->id)) continue;
      const PairedDifference difference = pairedDifference(*run.result, *reference, accuracy.paired);
      if (!difference.windows.isEmpty()) m_series.push_back({run, difference});
    }
  refresh(m_series.isEmpty());
}

void WindowDeltaPlot::rebuild() {
  clearGraphs();
  m_graphs.clear();
  QVector<QCPGraph*> folded;
  for (const Series& series : m_series) {
    QVector<double> x, y;
    for (int i = 0; i < int(series.difference.windows.size()); ++i) {
      x.push_back(i + 1);
      y.push_back(series.difference.windows[i]);
    }
    QCPGraph* graph = addGraph();
    graph->setData(x, y, true);
    graph->setName(tr("%1: %2 ± %3").arg(series.run.name, formatNumber(series.difference.mean, 3),
                                         formatNumber(series.difference.standardError, 2)));
    m_graphs.push_back(graph);
    if (series.run.folded) folded.push_back(graph);
  }
  fold(folded);
  restyle(colours());
}

void WindowDeltaPlot::restyle(const PlotColours& look) {
  Plot::restyle(look);
  m_zero->setPen(QPen(look.text, 1.2, Qt::DashLine));
  for (int i = 0; i < int(m_graphs.size()); ++i) {
    QColor line = m_series[i].run.colour;
    if (m_series[i].run.folded) {
      m_graphs[i]->setScatterStyle(QCPScatterStyle());
      m_graphs[i]->setPen(QPen(foldedColour(), 1));
      continue;
    }
    const bool few = m_series[i].difference.windows.size() <= 60;
    m_graphs[i]->setScatterStyle(few ? markerStyle(markerOf(line, m_series[i].run.marker), line, 6) : QCPScatterStyle());
    line.setAlphaF(colours().dark || !few ? 0.9f : 0.45f);
    m_graphs[i]->setPen(QPen(line, 1.2));
  }
}

void WindowDeltaPlot::fitView() {
  QVector<double> values{0};
  qsizetype windows = 1;
  for (const Series& series : m_series) {
    values += series.difference.windows;
    windows = std::max(windows, series.difference.windows.size());
  }
  xAxis->setRange(0.3, double(windows) + 0.7);
  yAxis->setRange(limits(values, false));
}

QString WindowDeltaPlot::describe(const QPointF& pixel) const {
  if (!axisRect()->rect().contains(pixel.toPoint())) return {};
  const auto window = std::lround(xAxis->pixelToCoord(pixel.x()));
  QStringList lines;
  // Of many runs the one whose line is nearest is named.
  const Series* near = nullptr;
  double best = std::numeric_limits<double>::infinity();
  for (const Series& series : m_series)
    if (window >= 1 && window <= series.difference.windows.size())
      if (const double distance = std::abs(yAxis->coordToPixel(series.difference.windows[window - 1]) - pixel.y()); distance < best) {
        best = distance;
        near = &series;
      }
  int untold = 0;
  for (const Series& series : m_series)
    if (window >= 1 && window <= series.difference.windows.size()) {
      if (series.run.folded && &series != near) {
        ++untold;
        continue;
      }
      lines.push_back(tr("%1: %2 (mean of all %3 ± %4)")
                          .arg(series.run.name, formatNumber(series.difference.windows[window - 1], 3),
                               formatNumber(series.difference.mean, 3), formatNumber(series.difference.standardError, 2)));
    }
  if (untold > 0) lines.push_back(tr("and %1 others").arg(untold));
  if (lines.isEmpty()) return {};
  lines.prepend(tr("%1 %2, Δ %3 against %4").arg(m_accuracy.byItem ? tr("Item") : tr("Window")).arg(window).arg(m_accuracy.pairedTitle, m_reference));
  return lines.join(QLatin1Char('\n'));
}

PlotTable WindowDeltaPlot::table() const {
  PlotTable table{{m_accuracy.byItem ? tr("item") : tr("window")}, {}};
  qsizetype windows = 0;
  for (const Series& series : m_series) {
    table.headers.push_back(tr("%1: Δ %2 to %3").arg(series.run.name, m_accuracy.pairedTitle, m_reference));
    windows = std::max(windows, series.difference.windows.size());
  }
  for (int i = 0; i < int(windows); ++i) {
    QVector<QVariant> row{i + 1};
    for (const Series& series : m_series)
      row.push_back(i < series.difference.windows.size() ? QVariant(series.difference.windows[i]) : QVariant());
    table.rows.push_back(row);
  }
  return table;
}

}  // namespace qb::views
