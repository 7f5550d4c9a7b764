#include "views/plots/Plot.h"

#include <QApplication>
#include <QClipboard>
#include <QContextMenuEvent>
#include <QMenu>
#include <QStyle>
#include <QStyleOption>
#include <QToolButton>
#include <QToolTip>
#include <cmath>

namespace qb::views {

Plot::Plot(QWidget* parent) : QCustomPlot(parent) {
  setFocusPolicy(Qt::StrongFocus);
  setMouseTracking(true);
  setInteractions(QCP::iRangeDrag | QCP::iRangeZoom);
  setSelectionTolerance(8);
  setNoAntialiasingOnDrag(true);
  axisRect()->setRangeZoomFactor(0.85);

  m_caption = new PlotCaption(this);
  plotLayout()->insertRow(0);
  plotLayout()->addElement(0, 0, m_caption);
  plotLayout()->insertRow(1);
  plotLayout()->addElement(1, 0, legend);  // above the axes rather than over the data
  plotLayout()->setRowStretchFactor(0, 0.001);
  plotLayout()->setRowStretchFactor(1, 0.001);
  plotLayout()->setRowSpacing(2);
  legend->setFillOrder(QCPLayoutGrid::foColumnsFirst);
  legend->setRowSpacing(0);
  legend->setColumnSpacing(12);
  legend->setBorderPen(Qt::NoPen);
  legend->setBrush(Qt::NoBrush);
  legend->setIconSize(22, 12);

  m_emptyLabel = new QLabel(this);
  m_emptyLabel->setAlignment(Qt::AlignCenter);
  m_emptyLabel->setWordWrap(true);
  m_emptyLabel->setMargin(24);
  m_emptyLabel->setAutoFillBackground(true);
  m_emptyLabel->setBackgroundRole(QPalette::Base);
  m_emptyLabel->setForegroundRole(QPalette::PlaceholderText);
  m_emptyLabel->setAttribute(Qt::WA_TransparentForMouseEvents);

  m_resetAction = addPlotAction(tr("&Reset view"), Qt::Key_Home);
  connect(m_resetAction, &QAction::triggered, this, &Plot::resetView);
  m_zoomInAction = addPlotAction(tr("Zoom &in"), Qt::Key_Plus);
  connect(m_zoomInAction, &QAction::triggered, this, [this] { zoom(0.7); });
  m_zoomOutAction = addPlotAction(tr("Zoom &out"), Qt::Key_Minus);
  connect(m_zoomOutAction, &QAction::triggered, this, [this] { zoom(1 / 0.7); });
  m_rectangleAction = addPlotAction(tr("Zoom by &rectangle (or Shift and drag)"), Qt::Key_R);
  m_rectangleAction->setCheckable(true);
  m_logAction = addPlotAction(tr("&Logarithmic axis"), Qt::Key_L);
  m_logAction->setCheckable(true);
  connect(m_logAction, &QAction::toggled, this, [this] {
    applyScale();
    m_userView = false;
    refresh(m_empty);
  });
  m_legendAction = addPlotAction(tr("Le&gend"), Qt::Key_G);
  m_legendAction->setCheckable(true);
  connect(m_legendAction, &QAction::toggled, this, [this](bool on) {
    showLegend(on);
    refresh(m_empty);
  });
  showLegend(false);
  m_copyImageAction = addPlotAction(tr("&Copy image"), QKeySequence::Copy);
  connect(m_copyImageAction, &QAction::triggered, this, [this] { QApplication::clipboard()->setImage(image(2)); });
  m_copyDataAction = addPlotAction(tr("Copy &data as CSV"), QKeySequence(Qt::CTRL | Qt::SHIFT | Qt::Key_C));
  connect(m_copyDataAction, &QAction::triggered, this, [this] { QApplication::clipboard()->setText(toCsv(table())); });
  m_exportAction = addPlotAction(tr("&Export picture or data…"), QKeySequence(Qt::CTRL | Qt::Key_E));
  connect(m_exportAction, &QAction::triggered, this, &Plot::exportWithDialog);

  m_previousPageAction = addPlotAction(tr("&Previous runs"), Qt::Key_PageUp);
  m_nextPageAction = addPlotAction(tr("&Next runs"), Qt::Key_PageDown);
  connect(m_previousPageAction, &QAction::triggered, this, [this] { showPage(m_pages.page() - 1); });
  connect(m_nextPageAction, &QAction::triggered, this, [this] { showPage(m_pages.page() + 1); });
  const auto button = [this](QAction* action, Qt::ArrowType arrow) {
    auto* made = new QToolButton(this);
    made->setArrowType(arrow);
    made->setAutoRaise(true);
    made->setFocusPolicy(Qt::NoFocus);
    made->setCursor(Qt::ArrowCursor);
    made->setFixedSize(22, 20);
    made->setAccessibleName(QString(action->text()).remove(QLatin1Char('&')));
    made->setToolTip(tr("%1 (%2)").arg(made->accessibleName(), action->shortcut().toString(QKeySequence::NativeText)));
    connect(made, &QToolButton::clicked, action, &QAction::trigger);
    made->hide();
    return made;
  };
  m_previousButton = button(m_previousPageAction, Qt::UpArrow);
  m_nextButton = button(m_nextPageAction, Qt::DownArrow);
  for (QAction* action : {m_previousPageAction, m_nextPageAction}) {
    action->setVisible(false);
    action->setEnabled(false);
  }

  connect(this, &QCustomPlot::afterLayout, this, &Plot::fitTicks);
  connect(selectionRect(), &QCPSelectionRect::accepted, this, [this] { m_userView = true; });
  m_colours = plotColours(palette());
  // Virtual functions of the picture are out of reach here; the first event or setData() styles it.
}

QAction* Plot::addPlotAction(const QString& text, const QKeySequence& key) {
  auto* action = new QAction(text, this);
  action->setShortcut(key);
  action->setShortcutContext(Qt::WidgetShortcut);
  addAction(action);
  return action;
}

void Plot::setCaption(const QString& title, const QString& conditions) {
  m_caption->setText(title, conditions);
  setAccessibleName(title);
  setAccessibleDescription(conditions);
  if (m_ready) redraw();
}

void Plot::setEmptyText(const QString& text) { m_emptyLabel->setText(text); }

void Plot::setLogarithmic(bool on) { m_logAction->setChecked(on); }

void Plot::setLegendShown(bool on) { m_legendAction->setChecked(on); }

void Plot::applyScale() {
  QCPAxis* axis = valueAxis();
  if (isLogarithmic()) {
    axis->setScaleType(QCPAxis::stLogarithmic);
    axis->setTicker(QSharedPointer<LogTicker>::create());
    axis->setNumberFormat(QStringLiteral("gbc"));
    axis->setNumberPrecision(3);
  } else {
    axis->setScaleType(QCPAxis::stLinear);
    axis->setTicker(QSharedPointer<QCPAxisTicker>::create());
    axis->setNumberFormat(QStringLiteral("gbc"));
    axis->setNumberPrecision(4);
  }
}

void Plot::refresh(bool empty) {
  m_empty = empty;
  m_emptyLabel->setVisible(empty && !m_emptyLabel->text().isEmpty());
  m_emptyLabel->setGeometry(rect());
  if (!m_ready) {
    m_ready = true;
    m_colours = plotColours(palette());
    restyle(m_colours);
  }
  rebuild();
  if (!m_userView) fitView();
  fitLegend();
  fitRows();
  laidOut();
  redraw();
}

// After updateLayout(), for which the viewport has its size.
void Plot::arrange() {
  fitRows();
  if (!m_userView) fitView();  // room for labels depends on the size
  fitLegend();
  laidOut();
}

void Plot::setRows(int count, const QVector<int>& kept) {
  m_pages.setRows(count, kept);
  pagesChanged();
}

void Plot::setRowsAreLinears() {
  m_pages.setLinears();
  m_previousPageAction->setText(tr("&Previous linears"));
  m_nextPageAction->setText(tr("&Next linears"));
  for (const auto& [button, action] : {std::pair(m_previousButton, m_previousPageAction), std::pair(m_nextButton, m_nextPageAction)}) {
    button->setAccessibleName(QString(action->text()).remove(QLatin1Char('&')));
    button->setToolTip(tr("%1 (%2)").arg(button->accessibleName(), action->shortcut().toString(QKeySequence::NativeText)));
  }
}

// Rows are as high as their names.
bool Plot::fitRows() {
  if (m_pages.count() == 0) return false;
  const bool others = m_pages.fit((axisRect()->height() - aboveRows()) / (QFontMetrics(smallFont()).height() + 3));
  if (others) {
    rebuild();
    if (!m_userView) fitView();
  }
  pagesChanged();
  return others;
}

void Plot::pagesChanged() {
  const bool several = m_pages.pages() > 1 && !m_empty;
  m_caption->setNote(several ? m_pages.text() : QString(), 50);
  m_previousPageAction->setVisible(several);
  m_nextPageAction->setVisible(several);
  m_previousPageAction->setEnabled(several && m_pages.page() > 0);
  m_nextPageAction->setEnabled(several && m_pages.page() + 1 < m_pages.pages());
  int right = width() - 4;
  for (QToolButton* button : {m_nextButton, m_previousButton}) {
    button->setVisible(several);
    button->move(right - button->width(), 3);
    right -= button->width() + 2;
  }
  m_previousButton->setEnabled(m_previousPageAction->isEnabled());
  m_nextButton->setEnabled(m_nextPageAction->isEnabled());
  const bool divided = m_pages.onPage() < m_pages.visible().size();
  if (!m_rowDivider && divided) {
    m_rowDivider = new QCPItemStraightLine(this);
    m_rowDivider->setSelectable(false);
  }
  if (!m_rowDivider) return;
  m_rowDivider->setVisible(divided);
  m_rowDivider->setPen(QPen(m_colours.faint, 1, Qt::DotLine));
  m_rowDivider->point1->setTypeX(QCPItemPosition::ptAxisRectRatio);
  m_rowDivider->point2->setTypeX(QCPItemPosition::ptAxisRectRatio);
  m_rowDivider->point1->setCoords(0, m_pages.onPage() - 0.5);
  m_rowDivider->point2->setCoords(1, m_pages.onPage() - 0.5);
}

void Plot::showPage(int page) {
  if (m_pages.show(page)) refresh(m_empty);
}

void Plot::revealRow(int row) {
  if (m_pages.reveal(row)) refresh(m_empty);
}

// Soon; on a page that is not shown, when it is.
void Plot::redraw() {
  if (m_stale || !isVisible())
    m_stale = true;
  else
    replot(rpQueuedReplot);
}

void Plot::resetView() {
  m_userView = false;
  fitView();
  redraw();
}

void Plot::zoom(double factor) {
  m_userView = true;
  for (QCPAxisRect* rect : axisRects())
    for (QCPAxis* axis : rect->rangeZoomAxes(Qt::Horizontal) + rect->rangeZoomAxes(Qt::Vertical)) axis->scaleRange(factor);
  redraw();
}

void Plot::pan(double x, double y) {
  m_userView = true;
  const auto move = [](QCPAxis* axis, double share) {
    const QCPRange range = axis->range();
    if (axis->scaleType() == QCPAxis::stLogarithmic)
      axis->setRange(range.lower * std::pow(range.upper / range.lower, share), range.upper * std::pow(range.upper / range.lower, share));
    else
      axis->setRange(range.lower + share * range.size(), range.upper + share * range.size());
  };
  for (QCPAxisRect* rect : axisRects()) {
    for (QCPAxis* axis : rect->rangeDragAxes(Qt::Horizontal)) move(axis, x);
    for (QCPAxis* axis : rect->rangeDragAxes(Qt::Vertical)) move(axis, y);
  }
  redraw();
}

// A hidden legend keeps no room.
void Plot::showLegend(bool on) {
  legend->setVisible(on);
  legend->setMargins(on ? QMargins(8, 0, 8, 0) : QMargins(0, 0, 0, 0));
  legend->setSizeConstraintRect(QCPLayoutElement::scrOuterRect);
  legend->setMinimumSize(on ? QSize(0, 0) : QSize(1, 1));
  // Less than QWIDGETSIZE_MAX, which means "unset": a legend without entries would then narrow all of its column to nothing.
  legend->setMaximumSize(QWIDGETSIZE_MAX - 1, on ? QWIDGETSIZE_MAX : 1);
}

int Plot::headHeight() const {
  return m_caption->minimumOuterSizeHint().height() + (legend->visible() ? legend->minimumOuterSizeHint().height() : 0);
}

void Plot::fold(const QVector<QCPGraph*>& others) {
  const QString below = QStringLiteral("folded");
  if (!layer(below)) addLayer(below, layer(QStringLiteral("main")), limBelow);
  for (QCPGraph* graph : others) {
    graph->setLayer(below);
    if (graph == others.front()) graph->setName(tr("%1 others (named on hovering)").arg(others.size()));
    else graph->removeFromLegend();
  }
}

QColor Plot::foldedColour() const {
  QColor grey = m_colours.faint;
  grey.setAlphaF(0.45f);
  return grey;
}

void Plot::fitLegend() {
  if (!legend->visible() || legend->itemCount() == 0) return;
  constexpr int kBeside = 22 + 7 + 14;  // icon, its padding, space between columns
  const QFontMetrics metrics(smallFont());
  int widest = 20;
  QVector<QCPAbstractPlottable*> named;
  for (int i = 0; i < legend->itemCount(); ++i) {
    auto* item = qobject_cast<QCPPlottableLegendItem*>(legend->item(i));
    if (!item) continue;
    QCPAbstractPlottable* plottable = item->plottable();
    if (!plottable->property("fullName").isValid()) plottable->setProperty("fullName", plottable->name());
    widest = std::max(widest, metrics.horizontalAdvance(plottable->property("fullName").toString()));
    named.push_back(plottable);
  }
  const int room = std::max(80, viewport().width() - 16);
  const int items = std::max(1, int(named.size()));
  int columns = std::clamp(room / (std::min(widest, 150) + kBeside), 1, items);
  const int rows = (items + columns - 1) / columns;
  columns = (items + rows - 1) / rows;  // rows of equal length
  for (QCPAbstractPlottable* plottable : named)
    plottable->setName(metrics.elidedText(plottable->property("fullName").toString(), Qt::ElideMiddle, room / columns - kBeside));
  if (legend->wrap() == columns) return;
  legend->setWrap(columns);
  legend->setFillOrder(QCPLayoutGrid::foColumnsFirst, true);
}

// As many ticks as labels have room for.
void Plot::fitTicks() {
  bool changed = false;
  for (QCPAxisRect* rect : axisRects())
    for (QCPAxis* axis : rect->axes()) {
      const bool horizontal = axis->orientation() == Qt::Horizontal;
      const int count = std::clamp(horizontal ? rect->width() / 60 : rect->height() / 30, horizontal && rect->width() < 130 ? 2 : 3, 8);
      if (axis->ticker()->tickCount() == count) continue;
      axis->ticker()->setTickCount(count);
      changed = true;
    }
  if (changed) redraw();
}

QFont Plot::smallFont() const {
  QFont small = font();
  if (small.pointSizeF() > 0) small.setPointSizeF(small.pointSizeF() * 0.9);
  return small;
}

void Plot::styleAxisRect(QCPAxisRect* rect, const PlotColours& look) const {
  for (QCPAxis* axis : rect->axes()) {
    axis->setBasePen(QPen(look.faint, 1));
    axis->setTickPen(QPen(look.faint, 1));
    axis->setSubTickPen(QPen(look.faint, 0.6));
    axis->setLabelColor(look.text);
    axis->setTickLabelColor(look.text);
    axis->setLabelFont(smallFont());
    axis->setTickLabelFont(smallFont());
    axis->setLabelPadding(3);
    axis->setTickLabelPadding(4);
    axis->grid()->setPen(QPen(look.grid, 1));
    axis->grid()->setSubGridVisible(false);
    axis->grid()->setZeroLinePen(QPen(look.grid, 1));
  }
}

void Plot::restyle(const PlotColours& look) {
  setBackground(QBrush(look.background));
  m_caption->setLook(font(), look.text, look.faint);
  for (QCPAxisRect* rect : axisRects()) styleAxisRect(rect, look);
  legend->setFont(smallFont());
  legend->setTextColor(look.text);
  selectionRect()->setPen(QPen(look.highlight, 1));
  QColor fill = look.highlight;
  fill.setAlphaF(0.15f);
  selectionRect()->setBrush(fill);
}

void Plot::chooseScale(const QVector<double>& values) {
  const QCPRange range = limits(values, true);
  if (m_scaleChosen || range.upper < 20 * range.lower) return;
  m_scaleChosen = true;
  setLogarithmic(true);
}

QCPRange Plot::limits(const QVector<double>& values, bool logarithmic, bool fromZero) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const double value : values) {
    if (!std::isfinite(value) || (logarithmic && !(value > 0))) continue;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  if (low > high) return logarithmic ? QCPRange(0.1, 1) : QCPRange(0, 1);
  if (logarithmic) {
    const double room = std::max(std::pow(high / low, 0.06), 1.08);
    return {low / room, high * room};
  }
  if (fromZero) low = std::min(0.0, low), high = std::max(0.0, high);
  double room = (high - low) * 0.06;
  if (!(room > 0)) room = high == 0 ? 1 : std::abs(high) * 0.05;
  return {fromZero && low == 0 ? 0 : low - room, high + room};
}

void Plot::fillMenu(QMenu* menu) const {
  menu->addActions({m_resetAction, m_zoomInAction, m_zoomOutAction, m_rectangleAction, m_previousPageAction, m_nextPageAction});
  menu->addSeparator();
  menu->addActions({m_logAction, m_legendAction});
  // What a picture adds of its own.
  const QList<QAction*> known = {m_resetAction,  m_zoomInAction, m_zoomOutAction,   m_rectangleAction, m_previousPageAction, m_nextPageAction,
                                 m_logAction,    m_legendAction, m_exportAction, m_copyImageAction, m_copyDataAction};
  for (QAction* action : actions())
    if (!known.contains(action)) menu->addAction(action);
  menu->addSeparator();
  menu->addActions({m_exportAction, m_copyImageAction, m_copyDataAction});
}

QString Plot::describe(const QPointF&) const { return {}; }

void Plot::activate(const QPointF&) {}

}  // namespace qb::views
