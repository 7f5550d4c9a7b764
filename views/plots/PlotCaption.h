#pragma once
#include <qcustomplot.h>

namespace qb::views {

// Title and, below it in fainter text, the conditions under which the numbers were taken. Lies in the plot itself, so that an
// exported picture says what it shows. The conditions wrap at the plot's width.
class PlotCaption : public QCPLayoutElement {
  Q_OBJECT
 public:
  explicit PlotCaption(QCustomPlot* plot);

  void setText(const QString& title, const QString& conditions);
  // At the right end of the title's line, `room` pixels from the edge: which part of the data is drawn.
  void setNote(const QString& note, int room);
  void setLook(const QFont& font, const QColor& title, const QColor& conditions);
  const QString& title() const { return m_title; }
  const QString& conditions() const { return m_conditions; }

  QSize minimumOuterSizeHint() const override;
  QSize maximumOuterSizeHint() const override;

 protected:
  void draw(QCPPainter* painter) override;

 private:
  int heightFor(int width) const;
  QString m_title, m_conditions, m_note;
  int m_noteRoom = 0;
  QFont m_titleFont, m_font;
  QColor m_titleColour, m_colour;
};

}  // namespace qb::views
