#include "views/plots/PlotCaption.h"

namespace qb::views {

PlotCaption::PlotCaption(QCustomPlot* plot) : QCPLayoutElement(plot) { setMargins(QMargins(8, 6, 8, 0)); }

void PlotCaption::setText(const QString& title, const QString& conditions) {
  m_title = title;
  m_conditions = conditions;
}

void PlotCaption::setNote(const QString& note, int room) {
  m_note = note;
  m_noteRoom = note.isEmpty() ? 0 : room;
}

void PlotCaption::setLook(const QFont& font, const QColor& title, const QColor& conditions) {
  m_font = font;
  if (font.pointSizeF() > 0) m_font.setPointSizeF(font.pointSizeF() * 0.9);
  m_titleFont = font;
  m_titleFont.setWeight(QFont::DemiBold);
  m_titleColour = title;
  m_colour = conditions;
}

int PlotCaption::heightFor(int width) const {
  int height = 0;
  if (!m_title.isEmpty()) height += QFontMetrics(m_titleFont).height() + 1;
  if (!m_conditions.isEmpty())
    height += QFontMetrics(m_font).boundingRect(QRect(0, 0, qMax(60, width), 10000), Qt::TextWordWrap | Qt::AlignLeft, m_conditions).height();
  return height;
}

QSize PlotCaption::minimumOuterSizeHint() const {
  const int width = parentPlot() ? parentPlot()->viewport().width() - mMargins.left() - mMargins.right() : 400;
  return {60, heightFor(width) + mMargins.top() + mMargins.bottom()};
}

QSize PlotCaption::maximumOuterSizeHint() const { return {QWIDGETSIZE_MAX, minimumOuterSizeHint().height()}; }

void PlotCaption::draw(QCPPainter* painter) {
  QRect space = rect();
  painter->setFont(m_titleFont);
  painter->setPen(m_titleColour);
  const QFontMetrics metrics(m_titleFont);
  if (!m_title.isEmpty()) {
    const int note = m_note.isEmpty() ? 0 : QFontMetrics(m_font).horizontalAdvance(m_note) + 8;
    painter->drawText(space, Qt::AlignLeft | Qt::AlignTop, metrics.elidedText(m_title, Qt::ElideRight, space.width() - note - m_noteRoom));
    if (note > 0) {
      painter->setFont(m_font);
      painter->setPen(m_colour);
      const QRect line(space.left(), space.top(), space.width() - m_noteRoom, metrics.height());
      painter->drawText(line, Qt::AlignRight | Qt::AlignVCenter, m_note);
    }
    space.setTop(space.top() + metrics.height() + 1);
  }
  painter->setFont(m_font);
  painter->setPen(m_colour);
  painter->drawText(space, Qt::TextWordWrap | Qt::AlignLeft | Qt::AlignTop, m_conditions);
}

}  // namespace qb::views
