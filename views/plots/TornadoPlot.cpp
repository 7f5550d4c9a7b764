#include "views/plots/TornadoPlot.h"

#include <cmath>

#include "views/models/LinearErrors.h"
#include "views/plots/MetricPlot.h"

namespace qb::views {

TornadoPlot::TornadoPlot(QWidget* parent) : Plot(parent), m_names(new PlaceTicker) {
  setRowsAreLinears();
  yAxis->setTicker(m_names);
  yAxis->setRangeReversed(true);
  yAxis->grid()->setVisible(false);
  axisRect()->setMinimumMargins(QMargins(4, 4, 14, 4));
  axisRect()->setRangeZoomAxes({xAxis});  // rows turn as pages
  axisRect()->setRangeDragAxes({xAxis});
  m_frame = new QCPItemRect(this);
  m_frame->setSelectable(false);
  m_frame->setVisible(false);
  m_frame->topLeft->setTypeX(QCPItemPosition::ptAxisRectRatio);
  m_frame->bottomRight->setTypeX(QCPItemPosition::ptAxisRectRatio);
  setLegendShown(true);
}

void TornadoPlot::setData(const SensitivityBars& bars) {
  m_data = bars;
  xAxis->setLabel(figureAxis(bars.figure));
  setRows(int(bars.bars.size()), {});
  QVector<double> values;
  for (const auto& bar : bars.bars) values.push_back(bar.value);
  chooseScale(values);
  refresh(bars.bars.isEmpty());
}

void TornadoPlot::setCurrent(const LinearKey& key) {
  m_current = key;
  if (const int row = rowOf(key); row >= 0) revealRow(row);
  markCurrent();
  redraw();
}

int TornadoPlot::rowOf(const LinearKey& key) const {
  for (int row = 0; row < int(m_data.bars.size()); ++row)
    if (m_data.bars[row].key == key) return row;
  return -1;
}

void TornadoPlot::rebuild() {
  clearPlottables();
  m_kinds.clear();
  m_errors = nullptr;
  m_floor = std::numeric_limits<double>::infinity();
  for (const auto& bar : m_data.bars)
    if (bar.value > 0) m_floor = std::min(m_floor, bar.value);
  m_floor = std::isfinite(m_floor) ? m_floor / 2 : 1e-12;
  const QVector<int>& shown = pages().visible();
  for (int kind = 0; kind < int(m_data.kinds.size()); ++kind) {
    auto* bars = new QCPBars(yAxis, xAxis);
    bars->setName(shortName(m_data.kinds[kind]));
    bars->setWidth(0.7);
    bars->setBaseValue(isLogarithmic() ? m_floor : 0);
    QVector<double> places, values;
    for (int i = 0; i < int(shown.size()); ++i) {
      const auto& bar = m_data.bars[shown[i]];
      if (bar.kind != m_data.kinds[kind]) continue;
      places.push_back(i);
      values.push_back(drawn(bar.value, isLogarithmic(), m_floor) - (isLogarithmic() ? m_floor : 0));
    }
    bars->setData(places, values, true);
    m_kinds.push_back(bars);
  }
  // Whiskers hang on a graph of their own: bars of several kinds share the rows.
  if (m_data.figure == Figure::Measured && !shown.isEmpty()) {
    QCPGraph* tips = addGraph(yAxis, xAxis);
    tips->setLineStyle(QCPGraph::lsNone);
    tips->removeFromLegend();
    QVector<double> places, values, errors;
    for (int i = 0; i < int(shown.size()); ++i) {
      places.push_back(i);
      values.push_back(drawn(m_data.bars[shown[i]].value, isLogarithmic(), m_floor));
      errors.push_back(m_data.bars[shown[i]].error);
    }
    tips->setData(places, values, true);
    m_errors = new QCPErrorBars(yAxis, xAxis);
    m_errors->removeFromLegend();
    m_errors->setDataPlottable(tips);
    m_errors->setErrorType(QCPErrorBars::etValueError);
    m_errors->setWhiskerWidth(6);
    m_errors->setSymbolGap(0);
    m_errors->setData(errors);
  }
  yAxis->setRange(-0.6, std::max<double>(1, double(shown.size())) - 0.4);
  markCurrent();
  restyle(colours());
}

void TornadoPlot::restyle(const PlotColours& look) {
  Plot::restyle(look);
  yAxis->grid()->setVisible(false);
  for (int kind = 0; kind < int(m_kinds.size()); ++kind) {
    const QColor colour = kindColour(kind);
    m_kinds[kind]->setPen(QPen(colour, 1));
    // From the ninth kind on colours come again, hatched.
    m_kinds[kind]->setBrush(QBrush(colour, kind < 8 ? Qt::SolidPattern : Qt::BDiagPattern));
  }
  for (int i = 0; i < legend->itemCount(); ++i)
    if (QCPAbstractLegendItem* item = legend->item(i)) item->setMargins(QMargins(0, 0, 0, 3));  // names have underscores
  if (m_errors) m_errors->setPen(QPen(look.text, 1.2));
  m_frame->setPen(QPen(look.text, 1.6));
  m_frame->setBrush(Qt::NoBrush);
}

void TornadoPlot::markCurrent() {
  const int row = m_current.isValid() ? rowOf(m_current) : -1;
  const auto line = row < 0 ? -1 : pages().visible().indexOf(row);
  m_frame->setVisible(line >= 0);
  if (line < 0) return;
  m_frame->topLeft->setCoords(0, double(line) - 0.48);
  m_frame->bottomRight->setCoords(1, double(line) + 0.48);
}

void TornadoPlot::laidOut() {
  QStringList names;
  for (const int row : pages().visible()) names.push_back(QStringLiteral("%1 · %2").arg(m_data.bars[row].key.block).arg(shortName(m_data.bars[row].key.name)));
  m_names->setPlaces(nameTicks(names, smallFont(), std::max(60, int(viewport().width() * 0.4))));
  m_names->setMost(std::max(1, int(names.size())));
}

void TornadoPlot::fitView() {
  QVector<double> values;
  for (const auto& bar : m_data.bars) values << bar.value << bar.value + bar.error;
  QCPRange range = limits(values, isLogarithmic(), true);
  if (isLogarithmic()) range.lower = m_floor;
  xAxis->setRange(range);
}

int TornadoPlot::rowAt(const QPointF& pixel) const {
  if (isEmpty() || pixel.y() < axisRect()->top() || pixel.y() > axisRect()->bottom() || pixel.x() > axisRect()->right()) return -1;
  const auto at = std::lround(yAxis->pixelToCoord(pixel.y()));
  return at >= 0 && at < pages().visible().size() ? pages().visible()[at] : -1;
}

LinearKey TornadoPlot::linearAt(const QPointF& pixel) const {
  const int row = rowAt(pixel);
  return row < 0 ? LinearKey{} : m_data.bars[row].key;
}

QPointF TornadoPlot::pixelOf(const LinearKey& key) const {
  const auto line = pages().visible().indexOf(rowOf(key));
  return {xAxis->coordToPixel(isLogarithmic() ? m_floor * 1.2 : 0), yAxis->coordToPixel(double(line))};
}

QString TornadoPlot::describe(const QPointF& pixel) const {
  const int row = rowAt(pixel);
  if (row < 0) return {};
  const auto& bar = m_data.bars[row];
  const QString error = bar.error > 0 ? tr(" ± %1").arg(formatNumber(bar.error, 2)) : QString();
  return tr("%1 under %2, place %3 of %4\n%5: %6%7\n%8").arg(linearTitle(bar.key), m_data.candidate).arg(row + 1).arg(m_data.bars.size()).arg(figureTitle(m_data.figure), formatNumber(bar.value), error, bar.others);
}

void TornadoPlot::activate(const QPointF& pixel) {
  if (const LinearKey key = linearAt(pixel); key.isValid()) Q_EMIT linearChosen(key);
}

bool TornadoPlot::step(int direction) {
  if (isEmpty()) return false;
  const int row = m_current.isValid() ? rowOf(m_current) : -1;
  Q_EMIT linearChosen(m_data.bars[row < 0 ? 0 : std::clamp(row + direction, 0, int(m_data.bars.size()) - 1)].key);
  return true;
}

PlotTable TornadoPlot::table() const {
  PlotTable table{{tr("block"), tr("linear"), tr("candidate"), figureAxis(m_data.figure), tr("standard error")}, {}};
  for (const auto& bar : m_data.bars) table.rows.push_back({bar.key.block, bar.key.name, m_data.candidate, bar.value, bar.error > 0 ? QVariant(bar.error) : QVariant()});
  return table;
}

}  // namespace qb::views
