#include "views/plots/RankPlot.h"

#include <cmath>

namespace qb::views {

RankPlot::RankPlot(QWidget* parent) : Plot(parent) {
  xAxis->setLabel(tr("Rank of the token in its text"));
  yAxis->setLabel(tr("Share of the text's tokens"));
  xAxis->setScaleType(QCPAxis::stLogarithmic);
  xAxis->setTicker(QSharedPointer<LogTicker>::create());
  xAxis->setNumberFormat(QStringLiteral("gbc"));
  xAxis->setNumberPrecision(3);
  axisRect()->setMinimumMargins(QMargins(4, 4, 14, 4));
  setLegendShown(true);
  setLogarithmic(true);
}

void RankPlot::setData(const QVector<Series>& series) {
  m_series = series;
  refresh(series.isEmpty());
}

void RankPlot::rebuild() {
  clearGraphs();
  m_graphs.clear();
  for (const Series& series : m_series) {
    QCPGraph* graph = addGraph();
    graph->setName(series.name);
    graph->setAdaptiveSampling(true);
    QVector<double> x, y;
    // Ranks of one count lie on a level: its ends draw it.
    for (int rank = 0; rank < int(series.counts.size()); ++rank) {
      const bool inside = rank > 0 && rank + 1 < int(series.counts.size()) && series.counts[rank - 1] == series.counts[rank] && series.counts[rank + 1] == series.counts[rank];
      if (inside) continue;
      x.push_back(rank + 1);
      y.push_back(double(series.counts[rank]) / double(std::max<int64_t>(1, series.tokens)));
    }
    graph->setData(x, y, true);
    m_graphs.push_back(graph);
  }
  restyle(colours());
}

void RankPlot::restyle(const PlotColours& look) {
  Plot::restyle(look);
  for (int i = 0; i < int(m_graphs.size()); ++i) m_graphs[i]->setPen(QPen(m_series[i].colour.isValid() ? m_series[i].colour : look.text, 1.6, m_series[i].dashed ? Qt::DashLine : Qt::SolidLine));
}

void RankPlot::fitView() {
  double most = 2;
  QVector<double> shares;
  for (const Series& series : m_series) {
    most = std::max(most, double(series.counts.size()));
    if (series.counts.isEmpty()) continue;
    shares << double(series.counts.front()) / double(series.tokens) << double(series.counts.back()) / double(series.tokens);
  }
  xAxis->setRange(0.9, most * 1.15);
  yAxis->setRange(limits(shares, isLogarithmic(), !isLogarithmic()));
}

QString RankPlot::describe(const QPointF& pixel) const {
  if (!axisRect()->rect().contains(pixel.toPoint())) return {};
  const auto rank = std::lround(xAxis->pixelToCoord(pixel.x()));
  QStringList lines;
  for (const Series& series : m_series) {
    if (rank < 1 || rank > series.counts.size()) continue;
    const QString token = rank <= series.spelled.size() ? tr(" “%1”").arg(series.spelled[rank - 1]) : QString();
    lines << tr("%1, rank %2:%3 %4 times, %5 %").arg(series.name).arg(rank).arg(token, QLocale().toString(qlonglong(series.counts[rank - 1])), formatNumber(100.0 * double(series.counts[rank - 1]) / double(series.tokens), 3));
  }
  return lines.join(QLatin1Char('\n'));
}

PlotTable RankPlot::table() const {
  PlotTable table{{tr("text"), tr("rank"), tr("token"), tr("count"), tr("share")}, {}};
  for (const Series& series : m_series)
    for (int rank = 0; rank < int(series.counts.size()); ++rank)
      table.rows.push_back({series.name, rank + 1, series.spelled.value(rank), qlonglong(series.counts[rank]), double(series.counts[rank]) / double(series.tokens)});
  return table;
}

}  // namespace qb::views
