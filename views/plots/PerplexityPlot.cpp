#include "views/plots/PerplexityPlot.h"

#include <cmath>

#include "views/models/Format.h"

namespace qb::views {

QVector<PlaceTicker::Place> nameTicks(const QStringList& names, const QFont& font, int room) {
  QVector<PlaceTicker::Place> places;
  const QFontMetrics metrics(font);
  for (int i = 0; i < int(names.size()); ++i) places.push_back({double(i), metrics.elidedText(names[i], Qt::ElideMiddle, room)});
  return places;
}

PerplexityPlot::PerplexityPlot(QWidget* parent) : Plot(parent), m_names(new PlaceTicker) {
  setEmptyText(tr("No perplexity yet. Run a recipe with an evaluation text to see what its bits cost."));
  yAxis->setTicker(m_names);
  yAxis->setRangeReversed(true);
  xAxis->setLabel(tr("Perplexity (lower is better)"));
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

void PerplexityPlot::setData(const Accuracy& accuracy) {
  m_accuracy = accuracy;
  m_runs.clear();
  QVector<int> kept;
  for (const Accuracy::Run& run : accuracy.runs) {
    if (!run.result) continue;
    if (run.kept) kept.push_back(int(m_runs.size()));
    m_runs.push_back(run);
  }
  setRows(int(m_runs.size()), kept);
  QVector<double> values;
  for (const Accuracy::Run& run : m_runs) values.push_back(run.result->value("perplexity"));
  chooseScale(values);
  refresh(m_runs.isEmpty() && !accuracy.floatModel);
}

void PerplexityPlot::rebuild() {
  clearPlottables();
  m_bars.clear();
  for (int i = 0; i < int(pages().visible().size()); ++i) {
    const auto& run = m_runs[pages().visible()[i]];
    QCPGraph* graph = addGraph(yAxis, xAxis);
    graph->setLineStyle(QCPGraph::lsNone);
    graph->setScatterStyle(markerStyle(markerOf(run.colour, run.marker), run.colour, 9));
    graph->setData({double(i)}, {run.result->value("perplexity")}, true);
    graph->setName(run.name);
    auto* bars = new QCPErrorBars(yAxis, xAxis);
    bars->removeFromLegend();
    bars->setDataPlottable(graph);
    bars->setErrorType(QCPErrorBars::etValueError);
    bars->setWhiskerWidth(9);
    bars->setSymbolGap(0);
    bars->setPen(QPen(run.colour, 1.6));
    bars->setData({run.result->error("perplexity")});
    m_bars.push_back(bars);
  }
  const EvaluationResult* model = m_accuracy.floatModel;
  for (QCPAbstractItem* item : std::initializer_list<QCPAbstractItem*>{m_floatBand, m_floatLine, m_floatText}) item->setVisible(model);
  if (model) {
    m_floatLine->point1->setCoords(model->value("perplexity"), 0);
    m_floatLine->point2->setCoords(model->value("perplexity"), 1);
    m_floatBand->topLeft->setTypeX(QCPItemPosition::ptPlotCoords);
    m_floatBand->topLeft->setTypeY(QCPItemPosition::ptAxisRectRatio);
    m_floatBand->bottomRight->setTypeY(QCPItemPosition::ptAxisRectRatio);
    const double low = model->value("perplexity") - model->error("perplexity");
    m_floatBand->topLeft->setCoords(isLogarithmic() && low <= 0 ? model->value("perplexity") : low, 0);
    m_floatBand->bottomRight->setCoords(model->value("perplexity") + model->error("perplexity"), 1);
    m_floatText->setText(tr("float model %1").arg(formatPerplexity(model->value("perplexity"))));
    m_floatText->position->setTypeY(QCPItemPosition::ptAxisRectRatio);
    m_floatText->setPositionAlignment(Qt::AlignLeft | Qt::AlignTop);
    m_floatText->position->setCoords(model->value("perplexity"), 0);
    m_floatText->setPadding(QMargins(6, 2, 6, 2));
  }
  restyle(colours());
}

void PerplexityPlot::restyle(const PlotColours& look) {
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

int PerplexityPlot::aboveRows() const { return m_accuracy.floatModel ? QFontMetrics(smallFont()).height() + 4 : 0; }

void PerplexityPlot::laidOut() {
  QStringList names;
  for (const int row : pages().visible()) names.push_back(m_runs[row].name);
  m_names->setPlaces(nameTicks(names, smallFont(), std::max(60, int(viewport().width() * 0.38))));
  m_names->setMost(std::max(1, int(names.size())));
  // The float model's figure stands above the first row.
  const double rows = std::max<double>(1, double(pages().visible().size()));
  const double above = aboveRows() * (rows + 0.2) / std::max(20, axisRect()->height() - aboveRows());
  yAxis->setRange(-0.5 - std::max(0.4, above), rows - 0.3);
}

void PerplexityPlot::fitView() {
  QVector<double> values;
  const auto add = [&values](const EvaluationResult& result) {
    values << result.value("perplexity") - result.error("perplexity") << result.value("perplexity") + result.error("perplexity") << result.value("perplexity");
  };
  for (const auto& run : m_runs) add(*run.result);
  if (m_accuracy.floatModel) add(*m_accuracy.floatModel);
  xAxis->setRange(limits(values, isLogarithmic()));
}

int PerplexityPlot::runAt(const QPointF& pixel) const {
  const auto at = std::lround(yAxis->pixelToCoord(pixel.y()));
  return axisRect()->rect().adjusted(-width(), 0, 0, 0).contains(pixel.toPoint()) && at >= 0 && at < pages().visible().size() ? pages().visible()[at] : -1;
}

QString PerplexityPlot::describe(const QPointF& pixel) const {
  const int at = runAt(pixel);
  if (at < 0) return {};
  const auto& run = m_runs[at];
  QString text = tr("%1\nperplexity %2 ± %3 (standard error)\n%4")
                     .arg(run.name, formatPerplexity(run.result->value("perplexity")), formatNumber(run.result->error("perplexity"), 2), m_accuracy.conditions);
  if (const EvaluationResult* model = m_accuracy.floatModel)
    text += tr("\n%1 % above the float model (%2)")
                .arg(formatNumber(100 * (run.result->value("perplexity") / model->value("perplexity") - 1), 3), formatPerplexity(model->value("perplexity")));
  return text;
}

void PerplexityPlot::activate(const QPointF& pixel) {
  const int at = runAt(pixel);
  if (at >= 0) Q_EMIT runChosen(m_runs[at].id);
}

PlotTable PerplexityPlot::table() const {
  PlotTable table{{tr("run"), tr("perplexity"), tr("standard error"), tr("mean NLL (nats/token)"), tr("corpus"), tr("seq_len (tokens)"),
                   tr("windows"), tr("dtype"), tr("BOS")},
                  {}};
  const auto add = [&table](const QString& name, const EvaluationResult& result) {
    table.rows.push_back({name, result.value("perplexity"), result.error("perplexity"), result.value("nll"), QString::fromStdString(result.corpus),
                          qlonglong(result.seq_len), qlonglong(result.windows), QString::fromStdString(result.dtype), QString::fromStdString(result.bos)});
  };
  if (m_accuracy.floatModel) add(tr("float model"), *m_accuracy.floatModel);
  for (const auto& run : m_runs) add(run.name, *run.result);
  return table;
}

}  // namespace qb::views
