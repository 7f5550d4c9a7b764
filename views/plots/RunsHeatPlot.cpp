#include "views/plots/RunsHeatPlot.h"

#include <cmath>

#include "views/plots/MetricPlot.h"

namespace qb::views {

RunsHeatPlot::RunsHeatPlot(QWidget* parent) : HeatPlot(parent) {
  setEmptyText(tr("Run a recipe, or switch on a run's eye in the list of runs, to see where each run's error lies."));
  m_byBlock = new QAction(tr("One column a &block: its worst linear"), this);
  m_byBlock->setCheckable(true);
  addAction(m_byBlock);
  connect(m_byBlock, &QAction::toggled, this, [this] {
    refresh(isEmpty());
    resetView();
  });
  // Rows turn as pages.
  axisRect()->setRangeZoomAxes({xAxis});
  axisRect()->setRangeDragAxes({xAxis});
}

void RunsHeatPlot::setData(const LinearErrors& errors, const QVector<int>& rows) {
  const bool otherPicture = rows != m_linears || errors.keys != m_errors.keys;
  const auto current = [](const LinearErrors& of) { return of.current < 0 ? QString() : of.runs[of.current].id; };
  const bool otherRun = current(errors) != current(m_errors);
  m_errors = errors;
  m_linears = rows;
  m_drawn.clear();
  QVector<int> kept;
  for (int run = 0; run < int(errors.runs.size()); ++run) {
    if (!errors.runs[run].drawn) continue;
    if (run == errors.current || run == errors.baseline) kept.push_back(int(m_drawn.size()));
    m_drawn.push_back(run);
  }
  setRows(int(m_drawn.size()), kept);
  refresh(m_drawn.isEmpty() || rows.isEmpty());
  if (otherPicture) resetView();
  if (otherRun) markCurrent();
}

void RunsHeatPlot::setCurrent(const LinearKey& key) {
  m_current = key;
  markCurrent();
  redraw();
}

double RunsHeatPlot::valueOf(int run, int row) const {
  const double value = m_errors.runs[run].values[row];
  if (!isDifference()) return value;
  return m_errors.baseline < 0 ? std::nan("") : value - m_errors.runs[m_errors.baseline].values[row];
}

int RunsHeatPlot::worstOf(int run, int column) const {
  const double sign = metricHigherIsBetter(m_errors.metric) ? -1 : 1;
  int worst = -1;
  for (const int row : m_columns[column])
    if (const double value = valueOf(run, row); !std::isnan(value) && (worst < 0 || sign * value > sign * valueOf(run, worst))) worst = row;
  return worst < 0 ? m_columns[column].front() : worst;
}

void RunsHeatPlot::rebuild() {
  m_blocks = m_byBlock->isChecked() || m_linears.size() > std::max(120, axisRect()->width());
  m_columns.clear();
  QVector<PlaceTicker::Place> blocks, names;
  int block = -1;
  for (const int row : m_linears) {
    const int here = m_errors.keys[row].block;
    if (here != block) blocks.push_back({double(m_columns.size()), QString::number(here)});
    if (here != block || !m_blocks) m_columns.push_back({});
    m_columns.back().push_back(row);
    block = here;
  }
  m_columnTicker->setPlaces(blocks);
  xAxis->setLabel(!m_blocks               ? tr("Linear in model order (ticks: block)")
                  : m_byBlock->isChecked() ? tr("Block (its worst linear)")
                                           : tr("Block (its worst linear: there is no room for each)"));

  QVector<double> values;
  for (const int run : m_drawn)
    for (const int row : m_linears) values.push_back(valueOf(run, row));
  setColours(values, m_errors.metric);
  const QVector<int>& shown = pages().visible();
  clearCells(int(m_columns.size()), int(shown.size()));
  for (int line = 0; line < int(shown.size()); ++line)
    for (int column = 0; column < int(m_columns.size()); ++column) {
      const int run = m_drawn[shown[line]];
      setCell(column, line, valueOf(run, worstOf(run, column)));
    }
  yAxis->setRange(-0.5, std::max<double>(1, double(shown.size())) - 0.5);
  markCurrent();
  restyle(colours());
}

void RunsHeatPlot::laidOut() {
  if (m_blocks != (m_byBlock->isChecked() || m_linears.size() > std::max(120, axisRect()->width()))) {
    rebuild();
    fitView();
  }
  QStringList names;
  for (const int at : pages().visible()) names.push_back(m_errors.runs[m_drawn[at]].name);
  m_rowTicker->setPlaces(nameTicks(names, smallFont(), std::max(60, int(viewport().width() * 0.24))));
  m_rowTicker->setMost(std::max(1, int(names.size())));
  m_columnTicker->setMost(std::max(2, axisRect()->width() / std::max(1, fontMetrics().horizontalAdvance(QStringLiteral("00000")))));
}

void RunsHeatPlot::fitView() {
  xAxis->setRange(-0.5, std::max<double>(1, double(m_columns.size())) - 0.5);
}

int RunsHeatPlot::columnOf(const LinearKey& key) const {
  for (int column = 0; column < int(m_columns.size()); ++column)
    for (const int row : m_columns[column])
      if (m_errors.keys[row] == key || (m_blocks && m_errors.keys[row].block == key.block)) return column;
  return -1;
}

void RunsHeatPlot::markCurrent() {
  const qsizetype line = m_errors.current < 0 ? -1 : pages().visible().indexOf(m_drawn.indexOf(m_errors.current));
  frameCell(m_current.isValid() ? columnOf(m_current) : -1, int(line));
}

RunsHeatPlot::Cell RunsHeatPlot::cellAt(const QPointF& pixel) const {
  if (!axisRect()->rect().contains(pixel.toPoint())) return {};
  const auto column = std::lround(xAxis->pixelToCoord(pixel.x())), line = std::lround(yAxis->pixelToCoord(pixel.y()));
  if (column < 0 || line < 0 || column >= m_columns.size() || line >= pages().visible().size()) return {};
  const int run = m_drawn[pages().visible()[line]];
  return {run, worstOf(run, int(column))};
}

LinearKey RunsHeatPlot::linearAt(const QPointF& pixel) const {
  const Cell cell = cellAt(pixel);
  return cell.run < 0 ? LinearKey{} : m_errors.keys[cell.row];
}

QString RunsHeatPlot::describe(const QPointF& pixel) const {
  const Cell cell = cellAt(pixel);
  if (cell.run < 0) {  // a name may be elided
    const auto line = std::lround(yAxis->pixelToCoord(pixel.y()));
    const bool beside = pixel.x() < axisRect()->left() && pixel.y() >= axisRect()->top() && pixel.y() <= axisRect()->bottom();
    return beside && line >= 0 && line < pages().visible().size() ? m_errors.runs[m_drawn[pages().visible()[line]]].name : QString();
  }
  return linearTitle(m_errors.keys[cell.row]) + QLatin1Char('\n') +
         describeValue(m_errors.runs[cell.run].name, m_errors.metric, valueOf(cell.run, cell.row)) +
         (m_blocks ? tr("\nthe worst linear of block %1").arg(m_errors.keys[cell.row].block) : QString());
}

void RunsHeatPlot::activate(const QPointF& pixel) {
  if (const Cell cell = cellAt(pixel); cell.run >= 0) Q_EMIT cellChosen(m_errors.runs[cell.run].id, m_errors.keys[cell.row]);
}

bool RunsHeatPlot::step(int direction) {
  if (isEmpty() || m_errors.current < 0) return false;
  const int column = m_current.isValid() ? columnOf(m_current) : -1;
  const int next = column < 0 ? 0 : std::clamp(column + direction, 0, int(m_columns.size()) - 1);
  Q_EMIT cellChosen(m_errors.runs[m_errors.current].id, m_errors.keys[worstOf(m_errors.current, next)]);
  return true;
}

// Up and down: the run above or below, on its page.
void RunsHeatPlot::keyPressEvent(QKeyEvent* event) {
  const bool vertical = event->key() == Qt::Key_Up || event->key() == Qt::Key_Down;
  if (!vertical || isEmpty() || event->modifiers() & (Qt::AltModifier | Qt::ControlModifier)) {
    HeatPlot::keyPressEvent(event);
    return;
  }
  const int at = int(m_drawn.indexOf(m_errors.current));
  const int next = at < 0 ? 0 : std::clamp(at + (event->key() == Qt::Key_Up ? -1 : 1), 0, int(m_drawn.size()) - 1);
  const LinearKey key = m_current.isValid() ? m_current : m_errors.keys[m_linears.front()];
  revealRow(next);
  Q_EMIT cellChosen(m_errors.runs[m_drawn[next]].id, key);
}

QPointF RunsHeatPlot::pixelOf(const QString& run, const LinearKey& key) const {
  for (int line = 0; line < int(pages().visible().size()); ++line)
    if (m_errors.runs[m_drawn[pages().visible()[line]]].id == run)
      if (const int column = columnOf(key); column >= 0) return {xAxis->coordToPixel(column), yAxis->coordToPixel(line)};
  return {};
}

PlotTable RunsHeatPlot::table() const {
  PlotTable table{{tr("run"), tr("block"), tr("linear"), (isDifference() ? tr("Δ %1") : tr("%1")).arg(metricLabel(m_errors.metric))}, {}};
  for (const int run : m_drawn)
    for (const int row : m_linears) {
      const double value = valueOf(run, row);
      table.rows.push_back({m_errors.runs[run].name, m_errors.keys[row].block, m_errors.keys[row].name, std::isnan(value) ? QVariant() : QVariant(value)});
    }
  return table;
}

}  // namespace qb::views
