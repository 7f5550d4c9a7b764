#include "views/plots/ParetoPlot.h"

#include <algorithm>
#include <cmath>

#include "views/models/Format.h"

namespace qb::views {

ParetoPlot::ParetoPlot(QWidget* parent) : Plot(parent) {
  setEmptyText(tr("Run several recipes to see which gives the most accuracy for its size."));
  m_bytes = new QAction(tr("Size in &GiB instead of bits per weight"), this);
  m_bytes->setCheckable(true);
  addAction(m_bytes);
  connect(m_bytes, &QAction::toggled, this, [this] {
    setData(m_accuracy);
    resetView();
  });
  axisRect()->setMinimumMargins(QMargins(4, 4, 12, 4));
  m_floatLine = new QCPItemStraightLine(this);
  m_floatText = new QCPItemText(this);
  m_floatLine->setSelectable(false);
  m_floatText->setSelectable(false);
  connect(this, &QCustomPlot::afterLayout, this, &ParetoPlot::placeLabels);  // also after zooming and before exporting
  legendAction()->setVisible(false);
  legendAction()->setEnabled(false);
}

void ParetoPlot::setMarked(const QString& run) {
  if (m_marked == run) return;
  m_marked = run;
  refresh(m_points.isEmpty());
}

QString ParetoPlot::unit() const { return m_bytes->isChecked() ? tr("GiB") : tr("bits per weight"); }

void ParetoPlot::setData(const Accuracy& accuracy) {
  m_accuracy = accuracy;
  m_points.clear();
  // Older runs do not know the whole model's size: then all stand at their linears'.
  const bool whole = std::all_of(accuracy.runs.begin(), accuracy.runs.end(), [](const Accuracy::Run& run) { return run.report->model_bytes > 0; });
  for (const Accuracy::Run& run : accuracy.runs) {
    const double bytes = double(whole ? run.report->model_bytes : run.report->quantized_bytes);
    const double size = m_bytes->isChecked() ? bytes / (1024.0 * 1024 * 1024) : run.report->bits_per_weight;
    if (!run.result || !(size > 0)) continue;
    m_points.push_back({run.id, run.name, size, accuracy.value(*run.result), accuracy.error(*run.result), run.colour, run.marker});
  }
  QVector<double> x, y;
  for (const Point& point : m_points) {
    x.push_back(point.x);
    y.push_back(point.y);
  }
  QVector<double> worse = y;
  if (accuracy.higherIsBetter)
    for (double& value : worse) value = -value;
  m_frontier = paretoFrontier(x, worse);
  yAxis->setLabel(accuracy.axis());
  chooseScale(y);
  xAxis->setLabel(m_bytes->isChecked() ? (whole ? tr("Size of the model (GiB)") : tr("Size of the linears in blocks (GiB)")) : tr("Bits per weight, scales and zeros included"));
  refresh(m_points.isEmpty());
}

void ParetoPlot::rebuild() {
  clearPlottables();
  for (QCPItemText* label : m_labels) removeItem(label);
  m_labels.clear();
  m_line = addGraph();
  m_line->setLineStyle(QCPGraph::lsStepLeft);
  QVector<double> x, y;
  for (const int i : m_frontier) {
    x.push_back(m_points[i].x);
    y.push_back(m_points[i].y);
  }
  m_line->setData(x, y, true);
  m_ring = addGraph();
  m_ring->setLineStyle(QCPGraph::lsNone);
  for (const Point& point : m_points)
    if (point.id == m_marked) m_ring->setData({point.x}, {point.y}, true);
  for (const Point& point : m_points) {
    QCPGraph* graph = addGraph();
    graph->setLineStyle(QCPGraph::lsNone);
    graph->setData({point.x}, {point.y}, true);
    graph->setScatterStyle(markerStyle(markerOf(point.colour, point.marker), point.colour, 9));
    auto* label = new QCPItemText(this);
    label->setSelectable(false);
    label->setText(elide(point.name, 30));
    label->position->setCoords(point.x, point.y);
    m_labels.push_back(label);
  }
  const EvaluationResult* model = m_accuracy.floatModel;
  m_floatLine->setVisible(model);
  m_floatText->setVisible(model);
  if (model) {
    m_floatLine->point1->setCoords(0, m_accuracy.value(*model));
    m_floatLine->point2->setCoords(1, m_accuracy.value(*model));
    m_floatText->setText(tr("%1 %2").arg(m_accuracy.floatName, m_accuracy.number(m_accuracy.value(*model))));
    m_floatText->position->setTypeX(QCPItemPosition::ptAxisRectRatio);
    // On the left, where small models are far from the float one, so that the label covers no point.
    m_floatText->position->setCoords(0, m_accuracy.value(*model));
    m_floatText->setPositionAlignment(Qt::AlignLeft | Qt::AlignBottom);
    m_floatText->setPadding(QMargins(4, 2, 4, 2));
  }
  restyle(colours());
}

void ParetoPlot::restyle(const PlotColours& look) {
  Plot::restyle(look);
  if (m_line) m_line->setPen(QPen(look.faint, 1.4));
  if (m_ring) m_ring->setScatterStyle(QCPScatterStyle(QCPScatterStyle::ssCircle, QPen(look.text, 2), Qt::NoBrush, 19));
  m_floatLine->setPen(QPen(look.text, 1.2, Qt::DashLine));
  for (QCPItemText* label : m_labels + QVector<QCPItemText*>{m_floatText}) {
    label->setFont(smallFont());
    label->setColor(look.text);
  }
}

// Labels go to the right of their point, else left, above or below: the first place free of other labels and points.
void ParetoPlot::placeLabels() {
  if (m_labels.isEmpty()) return;
  const QFontMetrics metrics(smallFont());
  const QRectF space = axisRect()->rect();
  QVector<QRectF> taken;
  QVector<QPointF> at;
  for (const Point& point : m_points) {
    at.push_back({xAxis->coordToPixel(point.x), yAxis->coordToPixel(point.y)});
    taken.push_back(QRectF(at.back() - QPointF(6, 6), QSizeF(12, 12)));
  }
  if (m_accuracy.floatModel) {
    const double y = yAxis->coordToPixel(m_accuracy.value(*m_accuracy.floatModel));
    const double width = metrics.horizontalAdvance(m_floatText->text()) + 8;
    // At the left, or at the right where points are in its way there and are not here.
    const QRectF left(space.left(), y - metrics.height() - 4, width, metrics.height() + 5), right = left.translated(space.width() - width, 0);
    const auto covers = [&](const QRectF& box) { return std::any_of(taken.begin(), taken.end(), [&](const QRectF& point) { return point.intersects(box); }); };
    const bool atRight = covers(left) && !covers(right);
    m_floatText->position->setCoords(atRight ? 1 : 0, m_accuracy.value(*m_accuracy.floatModel));
    m_floatText->setPositionAlignment((atRight ? Qt::AlignRight : Qt::AlignLeft) | Qt::AlignBottom);
    taken.push_back(atRight ? right : left);
    taken.push_back(QRectF(space.left(), y - 1, space.width(), 2));
  }
  for (qsizetype i = 1; i < m_frontier.size(); ++i) {  // the frontier's steps
    const QPointF from = at[m_frontier[i - 1]], to = at[m_frontier[i]];
    taken.push_back(QRectF(from.x(), from.y() - 1, to.x() - from.x(), 2));
    taken.push_back(QRectF(to.x() - 1, std::min(from.y(), to.y()), 2, std::abs(to.y() - from.y())));
  }
  struct Side {
    Qt::Alignment alignment;
    int x, y;  // of the label's box from the point: −1 left or above, 0 centred, 1 right or below
    int gapX, gapY;
  };
  static const Side sides[] = {
      {Qt::AlignLeft | Qt::AlignVCenter, 1, 0, 8, 0},    {Qt::AlignRight | Qt::AlignVCenter, -1, 0, 8, 0},
      {Qt::AlignHCenter | Qt::AlignBottom, 0, -1, 0, 8}, {Qt::AlignHCenter | Qt::AlignTop, 0, 1, 0, 8},
      {Qt::AlignLeft | Qt::AlignBottom, 1, -1, 5, 5},    {Qt::AlignLeft | Qt::AlignTop, 1, 1, 5, 5},
      {Qt::AlignRight | Qt::AlignBottom, -1, -1, 5, 5},  {Qt::AlignRight | Qt::AlignTop, -1, 1, 5, 5},
      {Qt::AlignLeft | Qt::AlignBottom, 1, -1, 8, 16},   {Qt::AlignRight | Qt::AlignBottom, -1, -1, 8, 16},
      {Qt::AlignLeft | Qt::AlignTop, 1, 1, 8, 16},       {Qt::AlignRight | Qt::AlignTop, -1, 1, 8, 16}};
  // Near places for all first, then far ones for those left over.
  QVector<bool> placed(m_labels.size(), false);
  for (const auto& [first, last] : {std::pair(0, 8), std::pair(8, 12)})
    for (int i = 0; i < int(m_labels.size()); ++i) {
      const QSizeF size(metrics.horizontalAdvance(m_labels[i]->text()) + 4, metrics.height());
      for (int s = first; s < last && !placed[i]; ++s) {
        const Side& side = sides[s];
        const double x = side.x < 0 ? -side.gapX - size.width() : side.x > 0 ? side.gapX : -size.width() / 2;
        const double y = side.y < 0 ? -side.gapY - size.height() : side.y > 0 ? side.gapY : -size.height() / 2;
        const QRectF box(at[i] + QPointF(x, y), size);
        if (!space.contains(box)) continue;
        bool free = true;
        for (int other = 0; other < int(taken.size()) && free; ++other) free = other == i || !taken[other].intersects(box);
        if (!free) continue;
        m_labels[i]->setPositionAlignment(side.alignment);
        m_labels[i]->setPadding(QMargins(side.x > 0 ? side.gapX : 0, side.y > 0 ? side.gapY : 0, side.x < 0 ? side.gapX : 0, side.y < 0 ? side.gapY : 0));
        taken.push_back(box);
        placed[i] = true;
      }
    }
  for (int i = 0; i < int(m_labels.size()); ++i) m_labels[i]->setVisible(placed[i]);  // a name without room stays in the tooltip
}

void ParetoPlot::fitView() {
  QVector<double> x, y;
  for (const Point& point : m_points) {
    x.push_back(point.x);
    y.push_back(point.y);
  }
  if (m_accuracy.floatModel) y.push_back(m_accuracy.value(*m_accuracy.floatModel));
  QCPRange range = limits(x, false);
  // Names stand on the right of their points.
  double name = 0;
  for (const QCPItemText* label : m_labels) name = std::max(name, double(QFontMetrics(smallFont()).horizontalAdvance(label->text())));
  const double space = std::max(200, axisRect()->width());
  const double right = std::min(0.35 * space, name + 14) / space;
  xAxis->setRange(range.lower - range.size() * 0.06, range.upper + range.size() * right / (1 - right));
  range = limits(y, isLogarithmic());
  if (!isLogarithmic()) range.upper += range.size() * 0.06;
  yAxis->setRange(range);
}

int ParetoPlot::pointAt(const QPointF& pixel) const {
  int best = -1;
  double nearest = 14 * 14;
  for (int i = 0; i < int(m_points.size()); ++i) {
    const QPointF away = QPointF(xAxis->coordToPixel(m_points[i].x), yAxis->coordToPixel(m_points[i].y)) - pixel;
    const double distance = QPointF::dotProduct(away, away);
    if (distance < nearest) {
      nearest = distance;
      best = i;
    }
  }
  return best;
}

QString ParetoPlot::describe(const QPointF& pixel) const {
  const int at = pointAt(pixel);
  if (at < 0) return {};
  const Point& point = m_points[at];
  return tr("%1\n%2 %3\n%4 %5 ± %6\n%7%8")
      .arg(point.name, formatNumber(point.x), unit(), m_accuracy.axis(), m_accuracy.number(point.y), formatNumber(point.error, 2), m_accuracy.conditions,
           m_frontier.contains(at) ? tr("\non the frontier: no shown run is smaller and better") : QString());
}

void ParetoPlot::activate(const QPointF& pixel) {
  const int at = pointAt(pixel);
  if (at >= 0) Q_EMIT runChosen(m_points[at].id);
}

PlotTable ParetoPlot::table() const {
  PlotTable table{{tr("run"), tr("size (%1)").arg(unit()), m_accuracy.axis(), tr("standard error"), tr("on the frontier"), tr("conditions")}, {}};
  for (int i = 0; i < int(m_points.size()); ++i)
    table.rows.push_back({m_points[i].name, m_points[i].x, m_points[i].y, m_points[i].error, m_frontier.contains(i) ? tr("yes") : tr("no"),
                          m_accuracy.conditions});
  return table;
}

}  // namespace qb::views
