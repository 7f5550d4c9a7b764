#include "views/plots/ParallelPlot.h"

#include <QMenu>
#include <QMouseEvent>
#include <algorithm>
#include <cmath>
#include <utility>

#include "views/models/LinearErrors.h"

namespace qb::views {
namespace {

constexpr int kNear = 10;          // pixels
constexpr double kBeyond = 0.03;   // a stretch may pass an axis' end, so that it surely holds what stands there
constexpr int kMostNamed = 8;      // runs in the tooltip of a place on an axis

// The part of the palette that stands out from the background; bright always means bad.
QCPColorGradient lineGradient(bool dark, bool inverted) {
  QCPColorGradient whole = heatGradient(HeatMap::Viridis);
  const double from = dark ? 0.3 : 0.0, to = dark ? 1.0 : 0.88;
  QCPColorGradient part;
  part.clearColorStops();
  constexpr int kStops = 24;
  for (int i = 0; i <= kStops; ++i) {
    const double at = double(i) / kStops;
    part.setColorStopAt(at, QColor::fromRgba(whole.color(from + (to - from) * (inverted ? 1 - at : at), QCPRange(0, 1))));
  }
  return part;
}

// A title in two lines where one has no room for it; the note is a line of its own.
QStringList titleLines(const QString& text, const QFontMetrics& metrics, int room) {
  QStringList lines = text.split(QLatin1Char('\n'));
  if (metrics.horizontalAdvance(lines[0]) > room)
    for (qsizetype space = lines[0].lastIndexOf(QLatin1Char(' ')); space > 0; space = lines[0].lastIndexOf(QLatin1Char(' '), space - 1))
      if (metrics.horizontalAdvance(lines[0].left(space)) <= room || lines[0].lastIndexOf(QLatin1Char(' '), space - 1) < 0) {
        const QString rest = lines[0].mid(space + 1);
        lines[0].truncate(space);
        lines.insert(1, rest);
        break;
      }
  for (QString& line : lines) line = metrics.elidedText(line, Qt::ElideRight, room);
  return lines;
}

}  // namespace

ParallelPlot::ParallelPlot(QWidget* parent) : Plot(parent) {
  setEmptyText(tr("Several runs that differ are drawn here, setting by setting and figure by figure."));
  for (QCPAxis* axis : {xAxis, yAxis}) {
    axis->setVisible(false);
    axis->grid()->setVisible(false);
  }
  axisRect()->setAutoMargins(QCP::msNone);
  axisRect()->setMargins(QMargins(4, 2, 4, 2));
  axisRect()->setRangeDrag(Qt::Horizontal);
  axisRect()->setRangeZoom(Qt::Horizontal);
  setAutoAddPlottableToLegend(false);
  m_scale = new QCPColorScale(this);  // in the layout only while lines have its colours
  m_scale->setType(QCPAxis::atRight);
  m_scale->setBarWidth(12);
  m_scale->setMinimumMargins(QMargins(4, 10, 2, 10));
  m_scale->setRangeDrag(false);
  m_scale->setRangeZoom(false);
  m_scale->setDataRange(QCPRange(0, 1));
  m_scale->setVisible(false);
  logAction()->setVisible(false);  // an axis each is logarithmic where its figures are far apart
  logAction()->setEnabled(false);
  m_clear = new QAction(tr("Show the runs outside of the &stretches again"), this);
  m_clear->setShortcut(Qt::Key_Backspace);
  m_clear->setShortcutContext(Qt::WidgetShortcut);
  m_clear->setEnabled(false);
  addAction(m_clear);
  connect(m_clear, &QAction::triggered, this, &ParallelPlot::clearBrushes);
  m_colourings = new QMenu(tr("C&olour of lines"), this);
  addAction(m_colourings->menuAction());
  // Nearer axes leave less room for their labels.
  connect(xAxis, qOverload<const QCPRange&>(&QCPAxis::rangeChanged), this, [this] { laidOut(); });
}

// Outside of the layout nobody else deletes it while its plot is whole.
ParallelPlot::~ParallelPlot() {
  if (!m_scale->visible()) delete m_scale;
}

void ParallelPlot::setData(const RunAxes& axes) {
  const QString dragged = m_dragged >= 0 ? m_data.axes[m_dragged].key : QString();
  m_data = axes;
  m_hovered = -1;
  const auto has = [&](const QString& key) { return std::any_of(axes.axes.begin(), axes.axes.end(), [&](const RunAxes::Axis& axis) { return axis.key == key; }); };
  for (auto it = m_brushes.begin(); it != m_brushes.end();) it = has(it.key()) ? std::next(it) : m_brushes.erase(it);
  if (m_dragged >= 0 && (m_dragged >= m_data.axes.size() || m_data.axes[m_dragged].key != dragged)) m_dragged = -1;
  fillColourings();
  refresh(axes.runs.size() < 2 || axes.axes.size() < 2);
}

QStringList ParallelPlot::inside() const {
  QStringList kept;
  for (const RunAxes::Run& run : m_data.runs) {
    bool in = true;
    for (int axis = 0; axis < int(m_data.axes.size()); ++axis) {
      const auto brush = m_brushes.find(m_data.axes[axis].key);
      if (brush == m_brushes.end()) continue;
      const double place = m_data.axes[axis].place(run.values[axis]);
      in = in && place >= brush->first && place <= brush->second;  // not for what is not known
    }
    if (in) kept << run.id;
  }
  return kept;
}

void ParallelPlot::setBrush(const QString& axis, double from, double to) {
  const auto before = m_brushes;
  if (from == to)
    m_brushes.remove(axis);
  else
    m_brushes[axis] = {std::min(from, to), std::max(from, to)};
  if (inside().isEmpty()) {
    m_brushes = before;
    return refresh(isEmpty());
  }
  tellBrushes();
}

void ParallelPlot::clearBrushes() {
  if (m_brushes.isEmpty()) return;
  m_brushes.clear();
  tellBrushes();
}

void ParallelPlot::tellBrushes() {
  const QStringList kept = inside();
  for (RunAxes::Run& run : m_data.runs) run.shown = kept.contains(run.id);  // as it will be; setData() says how it came out
  refresh(isEmpty());
  if (m_brushes.isEmpty())
    Q_EMIT released();
  else
    Q_EMIT brushed(kept);
}

void ParallelPlot::setColouring(const QString& axis) {
  m_colouring = axis;
  m_ownColours = false;
  fillColourings();
  refresh(isEmpty());
}

int ParallelPlot::colouringAxis() const {
  if (m_ownColours) return -1;
  for (int axis = 0; axis < int(m_data.axes.size()); ++axis)
    if (!m_colouring.isEmpty() && m_data.axes[axis].key == m_colouring) return axis;
  const bool figure = !m_data.axes.isEmpty() && m_data.axes.last().categories.isEmpty();
  return figure && m_data.runs.size() > kMostColours ? int(m_data.axes.size()) - 1 : -1;
}

QString ParallelPlot::colouring() const {
  const int axis = colouringAxis();
  return axis < 0 ? QString() : m_data.axes[axis].key;
}

void ParallelPlot::fillColourings() {
  m_colourings->clear();
  const auto add = [this](const QString& text, bool checked, auto&& choose) {
    QAction* action = m_colourings->addAction(text);
    action->setCheckable(true);
    action->setChecked(checked);
    connect(action, &QAction::triggered, this, choose);
  };
  const auto has = [&] { return std::any_of(m_data.axes.begin(), m_data.axes.end(), [&](const RunAxes::Axis& axis) { return axis.key == m_colouring; }); };
  add(tr("&Automatic: of more than %1 runs by the last figure").arg(kMostColours), !m_ownColours && !has(), [this] { setColouring({}); });
  add(tr("Each &run's own"), m_ownColours, [this] {
    m_ownColours = true;
    fillColourings();
    refresh(isEmpty());
  });
  m_colourings->addSeparator();
  for (const RunAxes::Axis& axis : m_data.axes) add(tr("By %1").arg(axis.heading()), !m_ownColours && axis.key == m_colouring, [this, key = axis.key] { setColouring(key); });
}

QColor ParallelPlot::colourOf(int run) const {
  const int axis = colouringAxis();
  if (axis < 0) return m_data.runs[run].colour;
  const double place = m_data.axes[axis].place(m_data.runs[run].values[axis]);
  if (std::isnan(place)) return colours().faint;
  return QColor::fromRgba(m_scale->gradient().color(place, QCPRange(0, 1)));
}

bool ParallelPlot::isDrawn(int run) const {
  const bool kept = m_brushes.isEmpty() || m_kept.contains(m_data.runs[run].id);
  return kept && (m_data.runs[run].shown || m_dragged >= 0);  // a stretch that is being widened takes hidden runs in again
}

// The bar that tells which colour stands for what.
void ParallelPlot::showScale() {
  const int axis = colouringAxis();
  const bool on = axis >= 0 && !isEmpty();
  const int row = plotLayout()->rowCount() - 1;
  if (on != m_scale->visible()) {
    m_scale->setVisible(on);
    if (on)
      plotLayout()->addElement(row, 1, m_scale);
    else {
      plotLayout()->take(m_scale);
      plotLayout()->simplify();
    }
  }
  if (!on) return;
  const RunAxes::Axis& of = m_data.axes[axis];
  m_scale->setGradient(lineGradient(colours().dark, of.better > 0));
  QVector<PlaceTicker::Place> places;
  for (const double tick : of.ticks()) places.push_back({of.place(tick), elide(of.text(tick), 18)});
  auto ticker = QSharedPointer<PlaceTicker>::create();
  ticker->setPlaces(places);
  m_scale->axis()->setTicker(ticker);
  m_scale->setLabel(of.heading());
}

void ParallelPlot::addText(int axis, double place, const QString& text, Qt::Alignment alignment, const char* role) {
  auto* item = new QCPItemText(this);
  item->setSelectable(false);
  item->position->setCoords(axis, place);
  item->setPositionAlignment(alignment);
  item->setTextAlignment(Qt::AlignHCenter);
  item->setText(text);
  item->setProperty("full", text);
  item->setProperty("role", QByteArray(role));
  item->setPadding(QMargins(6, 0, 3, 0));
  m_texts.push_back(item);
}

void ParallelPlot::rebuild() {
  clearGraphs();
  m_lines.clear();
  for (QCPItemLine* item : m_axes) removeItem(item);
  for (QCPItemText* item : m_texts) removeItem(item);
  for (QCPItemRect* item : m_stretches) removeItem(item);
  m_axes.clear();
  m_texts.clear();
  m_stretches.clear();
  m_clear->setEnabled(!m_brushes.isEmpty());
  m_kept = inside();
  showScale();
  const bool named = colouringAxis() < 0 && m_data.runs.size() <= kMostColours;
  // Grey lines first, so that they lie below; the current run's last.
  for (const int layer : {0, 1, 2})
    for (int run = 0; run < int(m_data.runs.size()); ++run) {
      if (layer != (!isDrawn(run) ? 0 : m_data.runs[run].current ? 2 : 1)) continue;
      QCPGraph* graph = addGraph();
      for (int axis = 0; axis < int(m_data.axes.size()); ++axis) graph->addData(axis, m_data.axes[axis].place(m_data.runs[run].values[axis]));
      graph->setName(m_data.runs[run].name);
      if (named && layer > 0) graph->addToLegend();
      m_lines.push_back({graph, run});
    }
  for (int axis = 0; axis < int(m_data.axes.size()); ++axis) {
    const RunAxes::Axis& of = m_data.axes[axis];
    auto* line = new QCPItemLine(this);
    line->start->setCoords(axis, 0);
    line->end->setCoords(axis, 1);
    line->setSelectable(false);
    m_axes.push_back(line);
    if (const auto brush = m_brushes.find(of.key); brush != m_brushes.end()) {
      auto* stretch = new QCPItemRect(this);
      stretch->setSelectable(false);
      stretch->topLeft->setCoords(axis - 0.05, brush->second);
      stretch->bottomRight->setCoords(axis + 0.05, brush->first);
      m_stretches.push_back(stretch);
    }
    addText(axis, 1, of.note.isEmpty() ? of.title : QStringLiteral("%1\n(%2)").arg(of.title, of.note), Qt::AlignHCenter | Qt::AlignBottom, "title");
    if (of.better > 0) addText(axis, 1, tr("↑ better"), Qt::AlignHCenter | Qt::AlignBottom, "hint");
    if (of.better < 0) addText(axis, 0, tr("↓ better"), Qt::AlignHCenter | Qt::AlignTop, "hint");
    for (const double tick : of.ticks()) addText(axis, of.place(tick), of.text(tick), Qt::AlignLeft | Qt::AlignVCenter, "tick");
  }
  restyle(colours());
}

void ParallelPlot::restyle(const PlotColours& look) {
  Plot::restyle(look);
  for (QCPAxis* axis : {xAxis, yAxis}) axis->grid()->setVisible(false);
  QCPAxis* bar = m_scale->axis();
  bar->setBasePen(QPen(look.faint, 1));
  bar->setTickPen(QPen(look.faint, 1));
  bar->setTickLabelColor(look.text);
  bar->setLabelColor(look.text);
  bar->setTickLabelFont(smallFont());
  bar->setLabelFont(smallFont());
  for (const auto& [graph, run] : m_lines) {
    const bool drawn = isDrawn(run), hovered = run == m_hovered;
    QColor colour = drawn ? colourOf(run) : foldedColour();
    if (drawn && !hovered && !m_data.runs[run].current) colour.setAlphaF(0.85f);
    graph->setPen(QPen(colour, hovered ? 3.4 : !drawn ? 0.8 : m_data.runs[run].current ? 2.8 : 1.5));
    graph->setScatterStyle(drawn ? QCPScatterStyle(QCPScatterStyle::ssDisc, colour, colour, 5) : QCPScatterStyle());
  }
  for (QCPItemLine* line : m_axes) line->setPen(QPen(look.text, 1.2));
  for (QCPItemRect* stretch : m_stretches) {
    QColor fill = look.highlight;
    fill.setAlphaF(0.35f);
    stretch->setPen(QPen(look.highlight, 1));
    stretch->setBrush(fill);
  }
  QColor behind = look.background;
  behind.setAlphaF(0.8f);
  for (QCPItemText* text : m_texts) {
    const QByteArray role = text->property("role").toByteArray();
    text->setFont(smallFont());
    text->setColor(role == "hint" ? look.faint : look.text);
    text->setBrush(role == "tick" ? QBrush(behind) : QBrush(Qt::NoBrush));
  }
}

// Titles stand above the axes and hints at their better ends, in lines of text whatever the height; what has no room is left out or elided.
void ParallelPlot::laidOut() {
  if (m_data.axes.isEmpty() || m_texts.isEmpty()) return;
  const int line = QFontMetrics(smallFont()).height();
  const auto any = [this](auto&& is) { return std::any_of(m_data.axes.begin(), m_data.axes.end(), is); };
  const int up = any([](const RunAxes::Axis& axis) { return axis.better > 0; }) ? line : 0, down = any([](const RunAxes::Axis& axis) { return axis.better < 0; }) ? line : 0;
  const int gap = line / 2 + 3;
  const int room = std::max(24, int(axisRect()->width() / std::max(1e-9, xAxis->range().size())) - 8);
  int lines = 1;
  for (QCPItemText* text : m_texts) {
    const bool title = text->property("role").toByteArray() == "title";
    const QFontMetrics metrics(text->font());
    const QString full = text->property("full").toString();
    // Labels start at their axis, behind its line, and leave the next one's free.
    const QStringList fitted = title ? titleLines(full, metrics, room + 4) : QStringList(metrics.elidedText(full, Qt::ElideRight, std::max(24, room - 8)));
    text->setText(fitted.join(QLatin1Char('\n')));
    lines = std::max(lines, int(fitted.size()));
  }
  const double above = gap + up + lines * line + 2, below = gap + down + 2;
  const double height = std::max(20.0, axisRect()->height() - above - below);
  yAxis->setRange(-below / height, 1 + above / height);
  double last = 1e9;
  for (QCPItemText* text : m_texts) {
    const QByteArray role = text->property("role").toByteArray();
    if (role == "title") {
      text->setPadding(QMargins(0, 0, 0, gap + up));
      last = 1e9;
    } else if (role == "hint")
      text->setPadding(QMargins(0, gap, 0, gap));
    else {
      const double y = yAxis->coordToPixel(text->position->value());
      const bool close = std::abs(y - last) < line;
      text->setVisible(!close);
      if (!close) last = y;
    }
  }
}

void ParallelPlot::fitView() {
  // Half the room of a title on either side, and more on the right for the last axis' labels.
  xAxis->setRange(-0.5, std::max(2, int(m_data.axes.size())) - 0.45);
}

QPointF ParallelPlot::pixelOf(int axis, double place) const { return {xAxis->coordToPixel(axis), yAxis->coordToPixel(place)}; }

double ParallelPlot::placeAt(double y) const { return std::clamp(yAxis->pixelToCoord(y), -kBeyond, 1 + kBeyond); }

int ParallelPlot::axisAt(const QPointF& pixel) const {
  for (int axis = 0; axis < int(m_data.axes.size()); ++axis)
    if (std::abs(xAxis->coordToPixel(axis) - pixel.x()) <= kNear && axisRect()->rect().contains(pixel.toPoint())) return axis;
  return -1;
}

int ParallelPlot::runAt(const QPointF& pixel) const {
  const double x = xAxis->pixelToCoord(pixel.x());
  const int left = int(std::floor(x));
  if (left < 0 || left + 1 >= int(m_data.axes.size())) return -1;
  int nearest = -1;
  double least = kNear;
  for (int run = 0; run < int(m_data.runs.size()); ++run) {
    if (!isDrawn(run)) continue;
    const auto& values = m_data.runs[run].values;
    const double a = m_data.axes[left].place(values[left]), b = m_data.axes[left + 1].place(values[left + 1]);
    const double away = std::abs(yAxis->coordToPixel(a + (b - a) * (x - left)) - pixel.y());
    if (away < least) least = away, nearest = run;
  }
  return nearest;
}

QString ParallelPlot::describe(const QPointF& pixel) const {
  if (const int at = axisAt(pixel); at >= 0) {
    const RunAxes::Axis& axis = m_data.axes[at];
    QStringList lines{axis.heading()};
    if (axis.better != 0) lines.last() += axis.better > 0 ? tr("; higher is better") : tr("; lower is better");
    if (!axis.conditions.isEmpty()) lines << axis.conditions;
    int more = 0;
    for (int run = 0; run < int(m_data.runs.size()); ++run) {
      const double value = m_data.runs[run].values[at];
      if (!isDrawn(run) || !(std::abs(yAxis->coordToPixel(axis.place(value)) - pixel.y()) <= kNear)) continue;
      if (lines.size() < kMostNamed + 2) lines << tr("%1: %2").arg(m_data.runs[run].name, axis.text(value));
      else ++more;
    }
    if (more > 0) lines << tr("and %1 more").arg(more);
    lines << (m_brushes.contains(axis.key) ? tr("Click to take the stretch back, double-click to take all back") : tr("Drag along the axis to keep the runs of a stretch"));
    return lines.join(QLatin1Char('\n'));
  }
  const int at = runAt(pixel);
  if (at < 0) return {};
  QStringList lines{m_data.runs[at].name};
  for (int axis = 0; axis < int(m_data.axes.size()); ++axis)
    lines << tr("%1: %2").arg(m_data.axes[axis].heading(), m_data.axes[axis].text(m_data.runs[at].values[axis]));
  return lines.join(QLatin1Char('\n'));
}

void ParallelPlot::activate(const QPointF& pixel) {
  if (const int axis = axisAt(pixel); axis >= 0) {
    if (m_brushes.contains(m_data.axes[axis].key)) setBrush(m_data.axes[axis].key, 0, 0);
    return;
  }
  if (const int at = runAt(pixel); at >= 0) Q_EMIT runChosen(m_data.runs[at].id);
}

void ParallelPlot::hover(int run) {
  if (run == m_hovered) return;
  m_hovered = run;
  restyle(colours());
  redraw();
}

// A drag that starts on an axis is ours; others move the picture.
void ParallelPlot::mousePressEvent(QMouseEvent* event) {
  const bool ours = event->button() == Qt::LeftButton && !event->modifiers().testFlag(Qt::ShiftModifier) && !rectangleAction()->isChecked() && !isEmpty();
  m_dragged = ours ? axisAt(event->position()) : -1;
  if (m_dragged < 0) return Plot::mousePressEvent(event);
  m_from = placeAt(event->position().y());
  m_before = m_brushes;
}

void ParallelPlot::mouseMoveEvent(QMouseEvent* event) {
  if (m_dragged < 0 || !event->buttons().testFlag(Qt::LeftButton)) {
    if (event->buttons() == Qt::NoButton && !isEmpty()) hover(axisAt(event->position()) >= 0 ? -1 : runAt(event->position()));
    return Plot::mouseMoveEvent(event);
  }
  // While it is drawn only the lines follow; runs come and go elsewhere when it is let go.
  const double to = placeAt(event->position().y());
  if (to != m_from) m_brushes[m_data.axes[m_dragged].key] = {std::min(m_from, to), std::max(m_from, to)};
  refresh(isEmpty());
}

void ParallelPlot::mouseReleaseEvent(QMouseEvent* event) {
  if (m_dragged < 0) return Plot::mouseReleaseEvent(event);
  const QString key = m_data.axes[std::exchange(m_dragged, -1)].key;
  m_brushes = m_before;  // so that a stretch which no run passes leaves all as it was
  if (std::abs(yAxis->coordToPixel(m_from) - event->position().y()) > 4)
    setBrush(key, m_from, placeAt(event->position().y()));
  else
    activate(event->position());
}

void ParallelPlot::mouseDoubleClickEvent(QMouseEvent* event) {
  m_dragged = -1;
  if (isBrushed())
    clearBrushes();
  else
    Plot::mouseDoubleClickEvent(event);
}

void ParallelPlot::leaveEvent(QEvent* event) {
  hover(-1);
  Plot::leaveEvent(event);
}

PlotTable ParallelPlot::table() const {
  PlotTable table{{tr("run")}, {}};
  for (const RunAxes::Axis& axis : m_data.axes) table.headers << axis.heading();
  for (const RunAxes::Run& run : m_data.runs) {
    QVector<QVariant> row{run.name};
    for (int axis = 0; axis < int(m_data.axes.size()); ++axis) {
      const double value = run.values[axis];
      row << (!std::isfinite(value) ? QVariant() : m_data.axes[axis].categories.isEmpty() ? QVariant(value) : QVariant(m_data.axes[axis].text(value)));
    }
    table.rows.push_back(row);
  }
  return table;
}

}  // namespace qb::views
