#include "views/plots/MetricPlot.h"

#include <cmath>

#include "views/models/Format.h"

namespace qb::views {

QVector<PlaceTicker::Place> nameTicks(const QStringList& names, const QFont& font, int room) {
  QVector<PlaceTicker::Place> places;
  const QFontMetrics metrics(font);
  for (int i = 0; i < int(names.size()); ++i) places.push_back({double(i), metrics.elidedText(names[i], Qt::ElideMiddle, room)});
  return places;
}

MetricPlot::MetricPlot(QWidget* parent) : Plot(parent), m_names(new PlaceTicker) {
  setEmptyText(tr("Nothing is measured yet. Run a recipe with an evaluation text to see what its bits cost."));
  yAxis->setTicker(m_names);
  yAxis->setRangeReversed(true);
  axisRect()->setMinimumMargins(QMargins(4, 4, 14, 4));
  m_floatBand = new QCPItemRect(this);
  m_floatLine = new QCPItemStraightLine(this);
  m_floatText = new QCPItemText(this);
  for (QCPAbstractItem* item : std::initializer_list<QCPAbstractItem*>{m_floatBand, m_floatLine, m_floatText}) {
    item->setSelectable(false);
    item->setVisible(false);
  }
  m_floatBand->setLayer(QStringLiteral("grid"));
  axisRect()->setRangeZoomAxes({xAxis});  // rows turn as pages
  axisRect()->setRangeDragAxes({xAxis});
  legendAction()->setVisible(false);
  legendAction()->setEnabled(false);
}

void MetricPlot::setData(const Accuracy& accuracy) {
  m_accuracy = accuracy;
  xAxis->setLabel(accuracy.higherIsBetter ? tr("%1; higher is better").arg(accuracy.axis()) : tr("%1; lower is better").arg(accuracy.axis()));
  m_runs.clear();
  QVector<int> kept;
  for (const Accuracy::Run& run : accuracy.runs) {
    if (!run.result) continue;
    if (run.kept) kept.push_back(int(m_runs.size()));
    m_runs.push_back(run);
  }
  setRows(int(m_runs.size()), kept);
  QVector<double> values;
  for (const Accuracy::Run& run : m_runs) values.push_back(m_accuracy.value(*run.result));
  chooseScale(values);
  refresh(m_runs.isEmpty() && !accuracy.floatModel);
}

void MetricPlot::rebuild() {
  clearPlottables();
  m_bars.clear();
  for (int i = 0; i < int(pages().visible().size()); ++i) {
    const auto& run = m_runs[pages().visible()[i]];
    QCPGraph* graph = addGraph(yAxis, xAxis);
    graph->setLineStyle(QCPGraph::lsNone);
    graph->setScatterStyle(markerStyle(markerOf(run.colour, run.marker), run.colour, 9));
    graph->setData({double(i)}, {m_accuracy.value(*run.result)}, true);
    graph->setName(run.name);
    auto* bars = new QCPErrorBars(yAxis, xAxis);
    bars->removeFromLegend();
    bars->setDataPlottable(graph);
    bars->setErrorType(QCPErrorBars::etValueError);
    bars->setWhiskerWidth(9);
    bars->setSymbolGap(0);
    bars->setPen(QPen(run.colour, 1.6));
    bars->setData({m_accuracy.error(*run.result)});
    m_bars.push_back(bars);
  }
  const EvaluationResult* model = m_accuracy.floatModel;
  for (QCPAbstractItem* item : std::initializer_list<QCPAbstractItem*>{m_floatBand, m_floatLine, m_floatText}) item->setVisible(model);
  if (model) {
    m_floatLine->point1->setCoords(m_accuracy.value(*model), 0);
    m_floatLine->point2->setCoords(m_accuracy.value(*model), 1);
    m_floatBand->topLeft->setTypeX(QCPItemPosition::ptPlotCoords);
    m_floatBand->topLeft->setTypeY(QCPItemPosition::ptAxisRectRatio);
    m_floatBand->bottomRight->setTypeY(QCPItemPosition::ptAxisRectRatio);
    const double low = m_accuracy.value(*model) - m_accuracy.error(*model);
    m_floatBand->topLeft->setCoords(isLogarithmic() && low <= 0 ? m_accuracy.value(*model) : low, 0);
    m_floatBand->bottomRight->setCoords(m_accuracy.value(*model) + m_accuracy.error(*model), 1);
    m_floatText->setText(tr("%1 %2").arg(m_accuracy.floatName, m_accuracy.number(m_accuracy.value(*model))));
    m_floatText->position->setTypeY(QCPItemPosition::ptAxisRectRatio);
    m_floatText->setPositionAlignment(Qt::AlignLeft | Qt::AlignTop);
    m_floatText->position->setCoords(m_accuracy.value(*model), 0);
    m_floatText->setPadding(QMargins(6, 2, 6, 2));
  }
  restyle(colours());
}

void MetricPlot::restyle(const PlotColours& look) {
  Plot::restyle(look);
  m_floatLine->setPen(QPen(look.text, 1.4, Qt::DashLine));
  QColor band = look.text;
  band.setAlphaF(0.10f);
  m_floatBand->setBrush(band);
  m_floatBand->setPen(Qt::NoPen);
  m_floatText->setColor(look.text);
  m_floatText->setFont(smallFont());
  yAxis->grid()->setVisible(false);
}

int MetricPlot::aboveRows() const { return m_accuracy.floatModel ? QFontMetrics(smallFont()).height() + 4 : 0; }

void MetricPlot::laidOut() {
  QStringList names;
  for (const int row : pages().visible()) names.push_back(m_runs[row].name);
  m_names->setPlaces(nameTicks(names, smallFont(), std::max(60, int(viewport().width() * 0.38))));
  m_names->setMost(std::max(1, int(names.size())));
  // The float model's figure stands above the first row, on the side of its line that has room for it.
  const bool fits = !m_accuracy.floatModel || xAxis->coordToPixel(m_accuracy.value(*m_accuracy.floatModel)) + QFontMetrics(smallFont()).horizontalAdvance(m_floatText->text()) + 12 < axisRect()->right();
  m_floatText->setPositionAlignment((fits ? Qt::AlignLeft : Qt::AlignRight) | Qt::AlignTop);
  const double rows = std::max<double>(1, double(pages().visible().size()));
  const double above = aboveRows() * (rows + 0.2) / std::max(20, axisRect()->height() - aboveRows());
  yAxis->setRange(-0.5 - std::max(0.4, above), rows - 0.3);
}

void MetricPlot::fitView() {
  QVector<double> values;
  const auto add = [&](const EvaluationResult& result) {
    values << m_accuracy.value(result) - m_accuracy.error(result) << m_accuracy.value(result) + m_accuracy.error(result) << m_accuracy.value(result);
  };
  for (const auto& run : m_runs) add(*run.result);
  if (m_accuracy.floatModel) add(*m_accuracy.floatModel);
  xAxis->setRange(limits(values, isLogarithmic()));
}

int MetricPlot::runAt(const QPointF& pixel) const {
  const auto at = std::lround(yAxis->pixelToCoord(pixel.y()));
  return axisRect()->rect().adjusted(-width(), 0, 0, 0).contains(pixel.toPoint()) && at >= 0 && at < pages().visible().size() ? pages().visible()[at] : -1;
}

QString MetricPlot::describe(const QPointF& pixel) const {
  const int at = runAt(pixel);
  if (at < 0) return {};
  const auto& run = m_runs[at];
  QString text = tr("%1\n%2 %3 ± %4 (standard error)\n%5")
                     .arg(run.name, m_accuracy.axis(), m_accuracy.number(m_accuracy.value(*run.result)), formatNumber(m_accuracy.error(*run.result), 2), m_accuracy.conditions);
  if (const EvaluationResult* model = m_accuracy.floatModel) {
    const double base = m_accuracy.value(*model), above = m_accuracy.value(*run.result) - base;
    text += base > 0 && m_accuracy.metric == "perplexity" ? tr("\n%1 % above the %2 (%3)").arg(formatNumber(100 * above / base, 3), m_accuracy.floatName, m_accuracy.number(base))
                                                          : tr("\n%1 against the %2 (%3)").arg(formatNumber(above, 3), m_accuracy.floatName, m_accuracy.number(base));
  }
  return text;
}

void MetricPlot::activate(const QPointF& pixel) {
  const int at = runAt(pixel);
  if (at >= 0) Q_EMIT runChosen(m_runs[at].id);
}

PlotTable MetricPlot::table() const {
  PlotTable table{{tr("run"), m_accuracy.axis(), tr("standard error"), tr("mean of the values by window or item"), tr("corpus"), tr("seq_len (tokens)"),
                   tr("windows"), tr("dtype"), tr("BOS")},
                  {}};
  const auto add = [&](const QString& name, const EvaluationResult& result) {
    table.rows.push_back({name, m_accuracy.value(result), m_accuracy.error(result), result.value(m_accuracy.paired), QString::fromStdString(result.corpus),
                          qlonglong(result.seq_len), qlonglong(result.windows), QString::fromStdString(result.dtype), QString::fromStdString(result.bos)});
  };
  if (m_accuracy.floatModel) add(m_accuracy.floatName, *m_accuracy.floatModel);
  for (const auto& run : m_runs) add(run.name, *run.result);
  return table;
}

}  // namespace qb::views
