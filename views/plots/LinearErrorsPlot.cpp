#include "views/plots/LinearErrorsPlot.h"

#include <cmath>
#include <limits>

namespace qb::views {

LinearErrorsPlot::LinearErrorsPlot(QWidget* parent) : Plot(parent), m_ticker(new PlaceTicker) {
  setEmptyText(tr("Run a recipe to see its errors per layer, or switch on a run's eye in the list of runs."));
  xAxis->setTicker(m_ticker);
  m_cursor = new QCPItemStraightLine(this);
  m_cursor->setVisible(false);
  m_cursor->setSelectable(false);
  axisRect()->setMinimumMargins(QMargins(8, 4, 12, 4));
  setLegendShown(true);
}

void LinearErrorsPlot::setData(const LinearErrors& errors, const QVector<int>& rows, bool inDepthOrder) {
  const bool otherPicture = errors.metric != m_errors.metric || inDepthOrder != m_depth || rows.size() != m_rows.size();
  m_errors = errors;
  m_rows = rows;
  m_depth = inDepthOrder;
  m_placeOfRow.fill(-1, errors.rows());
  for (int place = 0; place < int(rows.size()); ++place) m_placeOfRow[rows[place]] = place;
  yAxis->setLabel(metricLabel(errors.metric));
  xAxis->setLabel(inDepthOrder ? tr("Linear in depth order (ticks: block)") : tr("Linear, worst first (rank)"));
  refresh(errors.isEmpty() || rows.isEmpty());
  if (otherPicture) resetView();
}

void LinearErrorsPlot::setCurrent(const LinearKey& key) {
  if (m_current == key) return;
  m_current = key;
  markCurrent();
  redraw();
}

void LinearErrorsPlot::rebuild() {
  clearGraphs();
  m_graphs.clear();
  m_marks.clear();
  m_zeros = nullptr;

  QVector<PlaceTicker::Place> places;
  int block = -1;
  for (int place = 0; place < int(m_rows.size()); ++place) {
    const int here = m_errors.keys[m_rows[place]].block;
    if (!m_depth)
      places.push_back({double(place), QString::number(place + 1)});
    else if (here != block)
      places.push_back({double(place), QString::number(here)});
    block = here;
  }
  m_ticker->setPlaces(places);

  QVector<double> all;
  for (const auto& run : m_errors.runs)
    if (run.drawn)
      for (const int row : m_rows) all.push_back(run.values[row]);
  m_floor = limits(all, isLogarithmic()).lower;

  QVector<double> zeroX, zeroY;
  QVector<QCPGraph*> folded;
  for (const auto& run : m_errors.runs) {
    if (!run.drawn) continue;
    QVector<double> x(m_rows.size()), y(m_rows.size());
    for (int place = 0; place < int(m_rows.size()); ++place) {
      const double value = run.values[m_rows[place]];
      x[place] = place;
      y[place] = !std::isfinite(value) ? std::nan("") : drawn(value, isLogarithmic(), m_floor);
      if (isLogarithmic() && value <= 0) {
        zeroX.push_back(place);
        zeroY.push_back(m_floor);
      }
    }
    QCPGraph* graph = addGraph();
    graph->setName(run.name);
    graph->setData(x, y, true);
    m_graphs.push_back(graph);
    if (run.folded) folded.push_back(graph);
  }
  fold(folded);
  // Values of zero, which a logarithmic axis cannot hold: open triangles at its lower edge.
  if (!zeroX.isEmpty()) {
    m_zeros = addGraph();
    m_zeros->setName(tr("0 (below the axis)"));
    m_zeros->setLineStyle(QCPGraph::lsNone);
    m_zeros->setData(zeroX, zeroY, true);
  }
  for (qsizetype i = 0; i < m_graphs.size(); ++i) {
    QCPGraph* mark = addGraph();
    mark->removeFromLegend();
    mark->setLineStyle(QCPGraph::lsNone);
    m_marks.push_back(mark);
  }
  markCurrent();
  restyle(colours());
}

void LinearErrorsPlot::laidOut() {
  m_ticker->setMost(std::max(2, axisRect()->width() / std::max(1, fontMetrics().horizontalAdvance(QStringLiteral("000"))) / 2));
  // Every marker only where they have room, else one in 40 pixels: a line redraws fast however many linears there are.
  const bool roomy = m_rows.size() * 8 < std::max(100, axisRect()->width());
  int i = 0;
  for (const auto& run : m_errors.runs) {
    if (!run.drawn || i >= m_graphs.size()) continue;
    QColor line = run.colour;
    line.setAlphaF(colours().dark || !roomy ? 0.9f : 0.55f);
    if (run.folded) {
      m_graphs[i]->setPen(QPen(foldedColour(), 1));
      m_graphs[i]->setScatterStyle(QCPScatterStyle());
      if (i < m_marks.size()) m_marks[i]->setScatterStyle(markerStyle(0, colours().faint, 5));
      ++i;
      continue;
    }
    // The current run stands out.
    const bool current = m_errors.current >= 0 && m_errors.runs[m_errors.current].id == run.id;
    m_graphs[i]->setPen(QPen(line, current ? 2 : roomy ? 1.4 : 1));
    m_graphs[i]->setScatterStyle(markerStyle(markerOf(run.colour, run.marker), run.colour, 6));
    m_graphs[i]->setScatterSkip(roomy ? 0 : int(m_rows.size()) * 40 / std::max(100, axisRect()->width()));
    m_graphs[i]->setAntialiased(m_rows.size() < 2000);
    if (i < m_marks.size()) m_marks[i]->setScatterStyle(markerStyle(markerOf(run.colour, run.marker), run.colour, 11));
    ++i;
  }
}

void LinearErrorsPlot::restyle(const PlotColours& look) {
  Plot::restyle(look);
  m_cursor->setPen(QPen(look.faint, 1, Qt::DashLine));
  if (m_zeros) m_zeros->setScatterStyle(QCPScatterStyle(QCPScatterStyle::ssTriangleInverted, QPen(look.text, 1), Qt::NoBrush, 7));
}

void LinearErrorsPlot::fitView() {
  xAxis->setRange(-0.8, std::max<double>(0.8, double(m_rows.size()) - 0.2));
  QVector<double> all;
  bool zeros = false;
  for (const auto& run : m_errors.runs)
    if (run.drawn)
      for (const int row : m_rows) {
        all.push_back(run.values[row]);
        zeros |= run.values[row] <= 0;
      }
  QCPRange range = limits(all, isLogarithmic());
  if (isLogarithmic() && zeros) range.lower /= std::max(1.05, std::pow(range.upper / range.lower, 0.05));
  yAxis->setRange(range);
}

void LinearErrorsPlot::markCurrent() {
  const int row = m_errors.rowOf(m_current);
  const int place = row < 0 || row >= m_placeOfRow.size() ? -1 : m_placeOfRow[row];
  m_cursor->setVisible(place >= 0);
  if (place >= 0) {
    m_cursor->point1->setCoords(place, yAxis->range().lower);
    m_cursor->point2->setCoords(place, yAxis->range().upper);
  }
  for (qsizetype i = 0; i < m_marks.size(); ++i) {
    if (place < 0)
      m_marks[i]->data()->clear();
    else
      m_marks[i]->setData({double(place)}, {(m_graphs[i]->data()->constBegin() + place)->value});
  }
  setAccessibleDescription(place >= 0 ? conditions() + QLatin1Char('\n') + textFor(place) : conditions());
}

int LinearErrorsPlot::placeAt(const QPointF& pixel) const {
  if (!axisRect()->rect().adjusted(-4, -4, 4, 4).contains(pixel.toPoint()) || m_rows.isEmpty()) return -1;
  // The nearest point of any run within reach; the vertical distance counts less, so that a column is easy to hit.
  const int middle = int(std::lround(xAxis->pixelToCoord(pixel.x())));
  const double perPixel = xAxis->range().size() / std::max(1, axisRect()->width());
  const int reach = std::clamp(int(std::ceil(12 * perPixel)), 1, 400);
  int best = -1;
  double bestDistance = 24 * 24;
  for (int place = std::max(0, middle - reach); place <= std::min(int(m_rows.size()) - 1, middle + reach); ++place)
    for (const QCPGraph* graph : m_graphs) {
      const double value = (graph->data()->constBegin() + place)->value;
      if (std::isnan(value)) continue;
      const double dx = xAxis->coordToPixel(place) - pixel.x(), dy = (yAxis->coordToPixel(value) - pixel.y()) / 3;
      const double distance = dx * dx + dy * dy;
      if (distance < bestDistance) {
        bestDistance = distance;
        best = place;
      }
    }
  return best;
}

QString LinearErrorsPlot::textFor(int place, int near) const {
  const int row = m_rows[place];
  QStringList lines{linearTitle(m_errors.keys[row])};
  int untold = 0;
  const double base = m_errors.baseline >= 0 ? m_errors.runs[m_errors.baseline].values[row] : std::nan("");
  for (int i = 0; i < int(m_errors.runs.size()); ++i) {
    const auto& run = m_errors.runs[i];
    if (!run.drawn || std::isnan(run.values[row])) continue;
    if (run.folded && i != near) {
      ++untold;
      continue;
    }
    QString line = tr("%1: %2").arg(run.name, formatWithUnit(run.values[row], metricUnit(m_errors.metric)));
    if (i == m_errors.baseline)
      line += tr(" (baseline)");
    else if (!std::isnan(base))
      line += tr(" (Δ %1)").arg(formatNumber(run.values[row] - base, 3));
    lines.push_back(line);
  }
  if (untold > 0) lines.push_back(tr("and %1 others").arg(untold));
  return lines.join(QLatin1Char('\n'));
}

QString LinearErrorsPlot::describe(const QPointF& pixel) const {
  const int place = placeAt(pixel);
  if (place < 0) return {};
  // Of many runs the one whose line is nearest is named.
  int near = -1;
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < int(m_errors.runs.size()); ++i) {
    const double value = m_errors.runs[i].values[m_rows[place]];
    if (!m_errors.runs[i].drawn || std::isnan(value)) continue;
    if (const double distance = std::abs(yAxis->coordToPixel(drawn(value, isLogarithmic(), m_floor)) - pixel.y()); distance < best) {
      best = distance;
      near = i;
    }
  }
  return textFor(place, near);
}

LinearKey LinearErrorsPlot::linearAt(const QPointF& pixel) const {
  const int place = placeAt(pixel);
  return place < 0 ? LinearKey{} : m_errors.keys[m_rows[place]];
}

void LinearErrorsPlot::activate(const QPointF& pixel) {
  if (const LinearKey key = linearAt(pixel); key.isValid()) Q_EMIT linearChosen(key);
}

bool LinearErrorsPlot::step(int direction) {
  if (m_rows.isEmpty()) return false;
  const int row = m_errors.rowOf(m_current);
  const int place = row < 0 ? -1 : m_placeOfRow[row];
  const int next = place < 0 ? (direction > 0 ? 0 : int(m_rows.size()) - 1) : std::clamp(place + direction, 0, int(m_rows.size()) - 1);
  Q_EMIT linearChosen(m_errors.keys[m_rows[next]]);
  return true;
}

QPointF LinearErrorsPlot::pixelOf(const LinearKey& key, int drawnRun) const {
  const int row = m_errors.rowOf(key);
  if (row < 0 || m_placeOfRow[row] < 0 || drawnRun >= m_graphs.size()) return {};
  const int place = m_placeOfRow[row];
  return {xAxis->coordToPixel(place), yAxis->coordToPixel((m_graphs[drawnRun]->data()->constBegin() + place)->value)};
}

PlotTable LinearErrorsPlot::table() const {
  PlotTable table{{tr("block"), tr("linear"), tr("subset")}, {}};
  for (const auto& run : m_errors.runs)
    if (run.drawn) table.headers.push_back(tr("%1: %2").arg(run.name, metricLabel(m_errors.metric)));
  for (const int row : m_rows) {
    QVector<QVariant> line{m_errors.keys[row].block, m_errors.keys[row].name, m_errors.subsets[row]};
    for (const auto& run : m_errors.runs)
      if (run.drawn) line.push_back(std::isnan(run.values[row]) ? QVariant() : QVariant(run.values[row]));
    table.rows.push_back(line);
  }
  return table;
}

}  // namespace qb::views
