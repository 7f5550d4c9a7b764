#include "views/plots/HeatMapPlot.h"

#include <cmath>

namespace qb::views {

HeatMapPlot::HeatMapPlot(QWidget* parent) : Plot(parent), m_blockTicker(new PlaceTicker), m_nameTicker(new PlaceTicker) {
  setEmptyText(tr("Choose a run in the list of runs to see where its error lies."));
  m_difference = new QAction(tr("&Difference to the baseline"), this);
  m_difference->setCheckable(true);
  addAction(m_difference);
  connect(m_difference, &QAction::toggled, this, [this] { refresh(m_errors.current < 0 || m_errors.isEmpty()); });
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
  xAxis->setTicker(m_blockTicker);
  yAxis->setTicker(m_nameTicker);
  yAxis->setRangeReversed(true);
  xAxis->grid()->setVisible(false);
  yAxis->grid()->setVisible(false);
  xAxis->setLabel(tr("Block"));
  m_frame = new QCPItemRect(this);
  m_frame->setVisible(false);
  m_frame->setSelectable(false);
  legendAction()->setVisible(false);
  legendAction()->setEnabled(false);
}

void HeatMapPlot::setData(const LinearErrors& errors) {
  m_errors = errors;
  refresh(errors.current < 0 || errors.isEmpty());
}

void HeatMapPlot::setDifference(bool on) { m_difference->setChecked(on); }

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
  m_blockTicker->setPlaces(blocks);
  m_nameTicker->setPlaces(names);

  const int columns = std::max(1, int(m_blocks.size())), rows = std::max(1, int(m_names.size()));
  const bool logarithmic = isLogarithmic() && !isDifference();
  QVector<double> values;
  for (int row = 0; row < m_errors.rows(); ++row) values.push_back(valueOf(row));
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

  m_map->data()->setSize(columns, rows);
  m_map->data()->setRange(QCPRange(0, columns - 1), QCPRange(0, rows - 1));
  if (columns == 1) m_map->data()->setKeyRange(QCPRange(-0.5, 0.5));
  if (rows == 1) m_map->data()->setValueRange(QCPRange(-0.5, 0.5));
  m_map->data()->fill(std::nan(""));
  for (int row = 0; row < m_errors.rows(); ++row) {
    const double value = values[row];
    if (!std::isfinite(value)) continue;
    m_map->data()->setCell(m_blockColumn[m_errors.keys[row].block], m_nameRow[m_errors.keys[row].name],
                           logarithmic && value <= 0 ? low : value);
  }
  QCPColorGradient gradient = isDifference() ? divergingGradient(colours().dark) : heatGradient(m_cividis->isChecked() ? HeatMap::Cividis : HeatMap::Viridis);
  // Bright always means bad.
  if (metricHigherIsBetter(m_errors.metric)) gradient = gradient.inverted();
  m_scale->setGradient(gradient);
  m_scale->setDataScaleType(logarithmic ? QCPAxis::stLogarithmic : QCPAxis::stLinear);
  m_scale->axis()->setTicker(logarithmic ? QSharedPointer<QCPAxisTicker>(new LogTicker) : QSharedPointer<QCPAxisTicker>(new QCPAxisTicker));
  m_scale->axis()->setNumberFormat(QStringLiteral("gbc"));
  m_scale->axis()->setNumberPrecision(3);
  m_scale->setDataRange(QCPRange(low, high));
  m_scale->setLabel(isDifference() ? tr("Δ %1").arg(metricLabel(m_errors.metric)) : metricLabel(m_errors.metric));
  markCurrent();
  restyle(colours());
}

void HeatMapPlot::restyle(const PlotColours& look) {
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

void HeatMapPlot::laidOut() {
  m_blockTicker->setMost(std::max(2, axisRect()->width() / std::max(1, fontMetrics().horizontalAdvance(QStringLiteral("00000")))));
  m_nameTicker->setMost(std::max(2, axisRect()->height() / std::max(1, fontMetrics().height())));
}

void HeatMapPlot::fitView() {
  xAxis->setRange(-0.5, std::max<qsizetype>(1, m_blocks.size()) - 0.5);
  yAxis->setRange(-0.5, std::max<qsizetype>(1, m_names.size()) - 0.5);
}

void HeatMapPlot::markCurrent() {
  const bool here = m_current.isValid() && m_blockColumn.contains(m_current.block) && m_nameRow.contains(m_current.name);
  m_frame->setVisible(here);
  if (!here) return;
  const double x = m_blockColumn[m_current.block], y = m_nameRow[m_current.name];
  m_frame->topLeft->setCoords(x - 0.5, y - 0.5);
  m_frame->bottomRight->setCoords(x + 0.5, y + 0.5);
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
  const double value = valueOf(row);
  const QString run = m_errors.current < 0 ? QString() : m_errors.runs[m_errors.current].name;
  const QString number = std::isnan(value) ? tr("not measured") : formatWithUnit(value, metricUnit(m_errors.metric));
  return linearTitle(m_errors.keys[row]) + QLatin1Char('\n') +
         tr("%1: %2 %3").arg(run, isDifference() ? tr("Δ %1 to the baseline").arg(metricTitle(m_errors.metric)) : metricTitle(m_errors.metric), number);
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
