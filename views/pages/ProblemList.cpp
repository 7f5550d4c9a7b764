#include "views/pages/ProblemList.h"

#include <QEvent>
#include <QVBoxLayout>
#include <algorithm>

namespace qb::views {

ProblemList::ProblemList(QWidget* parent) : QScrollArea(parent) {
  setObjectName(QStringLiteral("problems"));
  setAccessibleName(tr("What is wrong with the recipe"));
  setWidgetResizable(true);
  setFrameShape(QFrame::NoFrame);
  setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
  setSizePolicy(QSizePolicy::Preferred, QSizePolicy::Fixed);
  setFocusPolicy(Qt::NoFocus);  // its buttons have it
  m_inside = new QWidget;
  m_column = new QVBoxLayout(m_inside);
  m_column->setContentsMargins(0, 0, 0, 0);
  m_column->setSpacing(1);
  m_column->addStretch(1);
  setWidget(m_inside);
  m_inside->installEventFilter(this);
  hide();
}

void ProblemList::tell(const QVector<Row>& rows) {
  while (m_bars.size() > rows.size()) delete m_bars.takeLast();
  while (m_bars.size() < rows.size()) {
    auto* bar = new NoticeBar;
    bar->setClosable(false);
    m_column->insertWidget(int(m_bars.size()), bar);
    m_bars << bar;
  }
  for (qsizetype i = 0; i < rows.size(); ++i) m_bars[i]->tell(rows[i].kind, rows[i].text, rows[i].actions);
  setVisible(!rows.isEmpty());
  fitHeight();
}

QStringList ProblemList::texts() const {
  QStringList texts;
  for (const NoticeBar* bar : m_bars) texts << bar->text();
  return texts;
}

// As high as its rows, but never so high that form and text have no room.
void ProblemList::fitHeight() {
  const int wanted = m_inside->hasHeightForWidth() ? m_inside->heightForWidth(viewport()->width()) : m_inside->sizeHint().height();
  const int most = std::max(fontMetrics().height() * 6, parentWidget() ? parentWidget()->height() / 4 : 0);
  setFixedHeight(std::min(wanted, most));
}

void ProblemList::resizeEvent(QResizeEvent* event) {
  QScrollArea::resizeEvent(event);
  fitHeight();
}

bool ProblemList::eventFilter(QObject* object, QEvent* event) {
  if (object == m_inside && event->type() == QEvent::LayoutRequest) fitHeight();
  return QScrollArea::eventFilter(object, event);
}

}  // namespace qb::views
