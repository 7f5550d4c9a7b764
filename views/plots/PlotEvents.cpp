// What the user does to a picture: mouse, wheel, keyboard, menus; and what the desktop does: palette and font.
#include <QContextMenuEvent>
#include <QMenu>
#include <QStyle>
#include <QStyleOptionFocusRect>
#include <QToolTip>

#include "views/plots/Plot.h"

namespace qb::views {

void Plot::changeEvent(QEvent* event) {
  QCustomPlot::changeEvent(event);
  const bool look = event->type() == QEvent::PaletteChange || event->type() == QEvent::FontChange || event->type() == QEvent::StyleChange;
  if (!look || !m_ready) return;
  m_colours = plotColours(palette());
  restyle(m_colours);
  refresh(m_empty);
}

bool Plot::event(QEvent* event) {
  if (event->type() == QEvent::ToolTip) return true;  // ours follow the mouse
  if (event->type() == QEvent::ShortcutOverride) {
    // The plain letters and + − Home belong to the focused plot, not to a shortcut of the window.
    auto* key = static_cast<QKeyEvent*>(event);
    for (const QAction* action : actions())
      if (action->shortcut() == QKeySequence(key->keyCombination())) {
        event->accept();
        return true;
      }
  }
  return QCustomPlot::event(event);
}

void Plot::keyPressEvent(QKeyEvent* event) {
  for (QAction* action : actions())
    if (!action->shortcut().isEmpty() && action->isEnabled() && action->shortcut() == QKeySequence(event->keyCombination())) {
      action->trigger();
      return;
    }
  const bool held = event->modifiers() & (Qt::AltModifier | Qt::ControlModifier);
  switch (event->key()) {
    case Qt::Key_Left:
    case Qt::Key_Right: {
      const int direction = event->key() == Qt::Key_Left ? -1 : 1;
      if (held || !step(direction)) pan(direction * 0.1, 0);
      return;
    }
    case Qt::Key_Up: pan(0, 0.1); return;
    case Qt::Key_Down: pan(0, -0.1); return;
    case Qt::Key_Equal: zoom(0.7); return;  // "+" without Shift
    case Qt::Key_0: resetView(); return;
    default: QCustomPlot::keyPressEvent(event);
  }
}

void Plot::wheelEvent(QWheelEvent* event) {
  if (m_wheelNeedsFocus && !hasFocus()) {
    event->ignore();
    return;
  }
  if (m_pages.pages() > 1 && !event->modifiers().testFlag(Qt::ControlModifier)) {
    // A touchpad sends a page's turn in many small ones; past the last page it is the scroll area's.
    const int turn = (m_wheel + event->angleDelta().y()) / 120;
    m_wheel = (m_wheel + event->angleDelta().y()) % 120;
    const bool end = event->angleDelta().y() > 0 ? m_pages.page() == 0 : m_pages.page() + 1 == m_pages.pages();
    if (end) m_wheel = 0;
    if (turn != 0) showPage(m_pages.page() - turn);
    event->setAccepted(!end);
    return;
  }
  m_userView = true;
  QCustomPlot::wheelEvent(event);
  event->accept();
}

void Plot::mousePressEvent(QMouseEvent* event) {
  m_pressed = event->position();
  const bool rectangle = event->button() == Qt::LeftButton && (m_rectangleAction->isChecked() || event->modifiers().testFlag(Qt::ShiftModifier));
  setSelectionRectMode(rectangle ? QCP::srmZoom : QCP::srmNone);
  QCustomPlot::mousePressEvent(event);
}

void Plot::mouseReleaseEvent(QMouseEvent* event) {
  QCustomPlot::mouseReleaseEvent(event);
  const bool moved = (event->position() - m_pressed).manhattanLength() > 4;
  if (event->button() != Qt::LeftButton) return;
  if (moved)
    m_userView = true;
  else if (!m_empty)
    activate(event->position());
}

void Plot::mouseDoubleClickEvent(QMouseEvent* event) {
  QCustomPlot::mouseDoubleClickEvent(event);
  resetView();
}

void Plot::mouseMoveEvent(QMouseEvent* event) {
  QCustomPlot::mouseMoveEvent(event);
  if (event->buttons() != Qt::NoButton || m_empty) return;
  const QString text = describe(event->position());
  if (text.isEmpty())
    QToolTip::hideText();
  else
    QToolTip::showText(event->globalPosition().toPoint() + QPoint(12, 8), text, this);
}

void Plot::contextMenuEvent(QContextMenuEvent* event) {
  QMenu menu(this);
  if (m_menuExtension && !m_empty) {
    m_menuExtension(&menu, event->pos());
    if (!menu.isEmpty()) menu.addSeparator();
  }
  fillMenu(&menu);
  menu.exec(event->reason() == QContextMenuEvent::Keyboard ? mapToGlobal(rect().center()) : event->globalPos());
}

void Plot::resizeEvent(QResizeEvent* event) {
  // QCustomPlot's own would draw at once: hidden pages too, and several times while docks come and go.
  QWidget::resizeEvent(event);
  setViewport(rect());
  m_emptyLabel->setGeometry(rect());
  m_stale = true;
}

void Plot::followSize() {
  m_stale = false;
  if (m_ready) {
    updateLayout();
    arrange();
  }
  replot(rpQueuedRefresh);
}

void Plot::focusInEvent(QFocusEvent* event) {
  QCustomPlot::focusInEvent(event);
  update();
}

void Plot::focusOutEvent(QFocusEvent* event) {
  QCustomPlot::focusOutEvent(event);
  update();
}

void Plot::paintEvent(QPaintEvent* event) {
  if (m_stale) followSize();
  QCustomPlot::paintEvent(event);
  if (!hasFocus()) return;
  QPainter painter(this);
  painter.setPen(QPen(m_colours.highlight, 2));
  painter.drawRect(QRectF(rect()).adjusted(1, 1, -1, -1));
}

}  // namespace qb::views
