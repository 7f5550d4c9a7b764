#include "views/pages/ChoiceList.h"

#include <QButtonGroup>
#include <QMouseEvent>
#include <QPainter>
#include <QRadioButton>
#include <QStyle>
#include <QVBoxLayout>

#include "views/Theme.h"

namespace qb::views {
namespace {

// The texts below a button belong to it: a click on them is one on the button.
class Row : public QWidget {
 public:
  Row(QRadioButton* button, const Choice& choice) : m_button(button) {
    auto* column = new QVBoxLayout(this);
    column->setContentsMargins(8, 5, 8, 5);
    column->setSpacing(3);
    column->addWidget(button);
    auto* below = new QVBoxLayout;
    below->setContentsMargins(style()->pixelMetric(QStyle::PM_ExclusiveIndicatorWidth) + style()->pixelMetric(QStyle::PM_RadioButtonLabelSpacing), 0, 0, 0);
    below->setSpacing(4);
    if (!choice.detail.isEmpty()) {
      auto* detail = new QLabel(choice.detail);
      detail->setWordWrap(true);
      detail->setTextFormat(Qt::PlainText);
      detail->setForegroundRole(QPalette::PlaceholderText);
      below->addWidget(detail);
    }
    for (const QString& obstacle : choice.obstacles) below->addWidget(new ReasonLabel(obstacle));
    column->addLayout(below);
  }

 protected:
  void mousePressEvent(QMouseEvent* event) override {
    if (event->button() != Qt::LeftButton || !m_button->isEnabled()) return;
    m_button->setFocus(Qt::MouseFocusReason);
    m_button->click();
  }

 private:
  QRadioButton* m_button;
};

}  // namespace

ReasonLabel::ReasonLabel(const QString& text, Kind kind, QWidget* parent) : QLabel(text, parent), m_kind(kind) {
  setWordWrap(true);
  setTextFormat(Qt::PlainText);
  setTextInteractionFlags(Qt::TextSelectableByMouse | Qt::TextSelectableByKeyboard);  // to be reached without a mouse too
  setContentsMargins(8, 0, 0, 0);
}

void ReasonLabel::paintEvent(QPaintEvent* event) {
  QLabel::paintEvent(event);
  if (!text().isEmpty()) QPainter(this).fillRect(QRect(0, 1, 3, height() - 2), m_kind == Error ? Theme::error() : Theme::warning());
}

ChoiceList::ChoiceList(const QString& name, QWidget* parent) : QScrollArea(parent) {
  setAccessibleName(name);
  setWidgetResizable(true);
  setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
  viewport()->setBackgroundRole(QPalette::Base);
  setFocusPolicy(Qt::StrongFocus);  // for its label's key; the chosen button takes it
}

void ChoiceList::setChoices(const QVector<Choice>& choices, const QString& current) {
  m_choices = choices;
  delete m_buttons;
  m_buttons = new QButtonGroup(this);
  auto* all = new QWidget;
  all->setBackgroundRole(QPalette::Base);
  auto* column = new QVBoxLayout(all);
  column->setContentsMargins(0, 2, 0, 2);
  column->setSpacing(2);
  for (int i = 0; i < int(choices.size()); ++i) {
    const Choice& choice = choices[i];
    auto* button = new QRadioButton(choice.title);
    button->setEnabled(choice.obstacles.isEmpty());
    button->setChecked(choice.key == current && choice.obstacles.isEmpty());
    button->setAccessibleDescription((QStringList{choice.detail} + choice.obstacles).join(QLatin1Char('\n')).trimmed());
    m_buttons->addButton(button, i);
    auto* row = new Row(button, choice);
    column->addWidget(row);
    connect(button, &QRadioButton::toggled, this, [this, row, button, key = choice.key](bool on) {
      if (!on) return;
      setFocusProxy(button);
      ensureWidgetVisible(row, 0, 0);
      Q_EMIT chosen(key);
    });
  }
  column->addStretch(1);
  setWidget(all);  // deletes the former
  setFocusProxy(m_buttons->checkedButton());
}

const Choice* ChoiceList::current() const {
  const int index = m_buttons ? m_buttons->checkedId() : -1;
  return index < 0 ? nullptr : &m_choices[index];
}

QAbstractButton* ChoiceList::button(const QString& key) const {
  for (int i = 0; i < int(m_choices.size()); ++i)
    if (m_choices[i].key == key) return m_buttons->button(i);
  return nullptr;
}

}  // namespace qb::views
