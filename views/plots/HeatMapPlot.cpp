#include "views/plots/HeatMapPlot.h"

#include <cmath>

namespace qb::views {

HeatMapPlot::HeatMapPlot(QWidget* parent) : HeatPlot(parent) {
  setEmptyText(tr("Choose a run in the list of runs to see where its error lies."));
  xAxis->setLabel(tr("Block"));
}

void HeatMapPlot::setData(const LinearErrors& errors) {
  m_errors = errors;
  refresh(errors.current < 0 || errors.isEmpty());
}

void HeatMapPlot::setCurrent(const LinearKey& key) {
  m_current = key;
  markCurrent();
  redraw();
}

double HeatMapPlot::valueOf(int row) const { return isDifference() ? m_errors.delta(row) : m_errors.currentValue(row); }

void HeatMapPlot::rebuild() {
  m_blocks.clear();
  m_blockColumn.clear();
  m_nameRow.clear();
  m_names = m_errors.names();
  for (int i = 0; i < int(m_names.size()); ++i) m_nameRow[m_names[i]] = i;
  for (const LinearKey& key : m_errors.keys)
    if (m_blocks.isEmpty() || m_blocks.back() != key.block) {
      m_blockColumn[key.block] = int(m_blocks.size());
      m_blocks.push_back(key.block);
    }
  QVector<PlaceTicker::Place> blocks, names;
  for (int i = 0; i < int(m_blocks.size()); ++i) blocks.push_back({double(i), QString::number(m_blocks[i])});
  for (int i = 0; i < int(m_names.size()); ++i) names.push_back({double(i), elide(shortName(m_names[i]), 20)});
  m_columnTicker->setPlaces(blocks);
  m_rowTicker->setPlaces(names);

  QVector<double> values;
  for (int row = 0; row < m_errors.rows(); ++row) values.push_back(valueOf(row));
  setColours(values, m_errors.metric);
  clearCells(int(m_blocks.size()), int(m_names.size()));
  for (int row = 0; row < m_errors.rows(); ++row) setCell(m_blockColumn[m_errors.keys[row].block], m_nameRow[m_errors.keys[row].name], values[row]);
  markCurrent();
  restyle(colours());
}

void HeatMapPlot::laidOut() {
  m_columnTicker->setMost(std::max(2, axisRect()->width() / std::max(1, fontMetrics().horizontalAdvance(QStringLiteral("00000")))));
  m_rowTicker->setMost(std::max(2, axisRect()->height() / std::max(1, fontMetrics().height())));
}

void HeatMapPlot::fitView() {
  xAxis->setRange(-0.5, std::max<qsizetype>(1, m_blocks.size()) - 0.5);
  yAxis->setRange(-0.5, std::max<qsizetype>(1, m_names.size()) - 0.5);
}

void HeatMapPlot::markCurrent() {
  const bool here = m_current.isValid() && m_blockColumn.contains(m_current.block) && m_nameRow.contains(m_current.name);
  frameCell(here ? m_blockColumn[m_current.block] : -1, here ? m_nameRow[m_current.name] : -1);
}

int HeatMapPlot::rowAt(const QPointF& pixel) const {
  if (!axisRect()->rect().contains(pixel.toPoint())) return -1;
  const auto column = std::lround(xAxis->pixelToCoord(pixel.x())), line = std::lround(yAxis->pixelToCoord(pixel.y()));
  if (column < 0 || line < 0 || column >= m_blocks.size() || line >= m_names.size()) return -1;
  return m_errors.rowOf({m_blocks[column], m_names[line]});
}

QString HeatMapPlot::describe(const QPointF& pixel) const {
  const int row = rowAt(pixel);
  if (row < 0) return {};
  const QString run = m_errors.current < 0 ? QString() : m_errors.runs[m_errors.current].name;
  return linearTitle(m_errors.keys[row]) + QLatin1Char('\n') + describeValue(run, m_errors.metric, valueOf(row));
}

void HeatMapPlot::activate(const QPointF& pixel) {
  const int row = rowAt(pixel);
  if (row >= 0) Q_EMIT linearChosen(m_errors.keys[row]);
}

bool HeatMapPlot::step(int direction) {
  if (m_errors.isEmpty()) return false;
  const int row = m_errors.rowOf(m_current);
  const int next = row < 0 ? 0 : std::clamp(row + direction, 0, m_errors.rows() - 1);
  Q_EMIT linearChosen(m_errors.keys[next]);
  return true;
}

LinearKey HeatMapPlot::linearAt(const QPointF& pixel) const {
  const int row = rowAt(pixel);
  return row < 0 ? LinearKey{} : m_errors.keys[row];
}

QPointF HeatMapPlot::pixelOf(const LinearKey& key) const {
  return {xAxis->coordToPixel(m_blockColumn.value(key.block, -1)), yAxis->coordToPixel(m_nameRow.value(key.name, -1))};
}

PlotTable HeatMapPlot::table() const {
  PlotTable table{{tr("block"), tr("linear"), (isDifference() ? tr("Δ %1") : tr("%1")).arg(metricLabel(m_errors.metric))}, {}};
  for (int row = 0; row < m_errors.rows(); ++row) {
    const double value = valueOf(row);
    table.rows.push_back({m_errors.keys[row].block, m_errors.keys[row].name, std::isnan(value) ? QVariant() : QVariant(value)});
  }
  return table;
}

}  // namespace qb::views
