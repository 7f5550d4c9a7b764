#include "views/pages/NoticeBar.h"

#include <QEvent>
#include <QHBoxLayout>
#include <QPainter>
#include <QPushButton>

#include "views/Icons.h"
#include "views/Theme.h"

namespace qb::views {

NoticeBar::NoticeBar(QWidget* parent) : QFrame(parent) {
  m_icon = new QLabel;
  m_icon->setFixedWidth(20);
  m_text = new QLabel;
  m_text->setWordWrap(true);
  m_text->setTextInteractionFlags(Qt::TextSelectableByMouse | Qt::TextSelectableByKeyboard);
  m_text->setTextFormat(Qt::PlainText);
  m_close = new QToolButton;
  m_close->setAutoRaise(true);
  m_close->setIcon(icon(QStringLiteral("remove")));
  m_close->setToolTip(tr("Close this notice"));
  m_close->setAccessibleName(tr("Close this notice"));
  connect(m_close, &QToolButton::clicked, this, &NoticeBar::clear);
  m_actions = new QHBoxLayout;
  auto* row = new QHBoxLayout(this);
  row->setContentsMargins(10, 6, 6, 6);
  row->addWidget(m_icon, 0, Qt::AlignTop);
  row->addWidget(m_text, 1);
  row->addLayout(m_actions);
  row->addWidget(m_close, 0, Qt::AlignTop);
  setSizePolicy(QSizePolicy::Preferred, QSizePolicy::Maximum);
  hide();
}

void NoticeBar::tell(Kind kind, const QString& text, const QVector<Action>& actions) {
  m_kind = kind;
  m_text->setText(text);
  m_text->setAccessibleName(text);
  while (QLayoutItem* item = m_actions->takeAt(0)) {
    item->widget()->deleteLater();
    delete item;
  }
  for (const Action& action : actions) {
    auto* button = new QPushButton(action.text);
    connect(button, &QPushButton::clicked, this, [this, run = action.run] {
      if (m_closable) clear();
      run();
    });
    m_actions->addWidget(button);
  }
  dress();
  show();
}

void NoticeBar::clear() { hide(); }

void NoticeBar::setClosable(bool closable) {
  m_closable = closable;
  m_close->setVisible(closable);
}

void NoticeBar::dress() {
  const QString name = m_kind == Info ? QStringLiteral("info") : m_kind == Warning ? QStringLiteral("warning") : QStringLiteral("error");
  m_icon->setPixmap(icon(name).pixmap(QSize(16, 16), devicePixelRatioF()));
  update();
}

void NoticeBar::changeEvent(QEvent* event) {
  QFrame::changeEvent(event);
  if (event->type() == QEvent::PaletteChange) dress();
}

void NoticeBar::paintEvent(QPaintEvent*) {
  QColor colour = m_kind == Info ? palette().color(QPalette::Highlight) : m_kind == Warning ? Theme::warning() : Theme::error();
  QPainter painter(this);
  painter.fillRect(rect(), palette().color(QPalette::Base));
  QColor tint = colour;
  tint.setAlpha(28);
  painter.fillRect(rect(), tint);
  painter.fillRect(QRect(0, 0, 3, height()), colour);
}

}  // namespace qb::views
