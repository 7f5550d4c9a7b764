#include "views/pages/WelcomePage.h"

#include <QCommandLinkButton>
#include <QFileInfo>
#include <QLabel>
#include <QPushButton>
#include <QScrollArea>
#include <QStyleOptionButton>
#include <QStylePainter>
#include <QVBoxLayout>

#include "views/Icons.h"

namespace qb::views {
namespace {

// A flat button whose text begins at the left and is shortened in the middle. A style sheet would do the first, and keep the
// colours of the theme under which it was set.
class PathButton : public QPushButton {
 public:
  using QPushButton::QPushButton;

 protected:
  void paintEvent(QPaintEvent*) override {
    QStylePainter painter(this);
    QStyleOptionButton option;
    initStyleOption(&option);
    const QString text = std::exchange(option.text, QString());
    painter.drawControl(QStyle::CE_PushButton, option);
    const QRect inside = rect().adjusted(6, 0, -6, 0);
    painter.drawItemText(inside, Qt::AlignLeft | Qt::AlignVCenter, palette(), isEnabled(), fontMetrics().elidedText(text, Qt::ElideMiddle, inside.width()), QPalette::ButtonText);
  }
};

}  // namespace

WelcomePage::WelcomePage(QWidget* parent) : QWidget(parent) {
  auto* inside = new QWidget;
  inside->setMaximumWidth(620);
  auto* column = new QVBoxLayout(inside);
  column->setContentsMargins(24, 24, 24, 24);
  column->setSpacing(8);

  auto* title = new QLabel(tr("LLM-QBench Workbench"));
  QFont font = title->font();
  font.setPointSizeF(font.pointSizeF() * 2);
  font.setBold(true);
  title->setFont(font);
  auto* purpose = new QLabel(tr("Find the best way to quantize a language model: try recipes, see where each one hurts, take the best one home."));
  purpose->setWordWrap(true);
  purpose->setForegroundRole(QPalette::PlaceholderText);
  column->addWidget(title);
  column->addWidget(purpose);
  column->addSpacing(12);

  const auto way = [&](const QString& iconName, const QString& name, const QString& what, void (WelcomePage::*chosen)()) {
    auto* button = new QCommandLinkButton(name, what);
    button->setIcon(icon(iconName));
    button->setIconSize({24, 24});
    button->setSizePolicy(QSizePolicy::Preferred, QSizePolicy::Fixed);
    button->setFixedHeight(button->fontMetrics().height() * 3 + 18);
    connect(button, &QCommandLinkButton::clicked, this, chosen);
    column->addWidget(button);
    return button;
  };
  way(QStringLiteral("demo"), tr("Try the demo"), tr("Quantizes a small model to 4 and to 2 bits and shows where the error is. Takes seconds."), &WelcomePage::demoRequested)->setFocus();
  way(QStringLiteral("model"), tr("Open a model…"), tr("A Hugging Face folder or a GGUF file. Drop it on the window, if you like."), &WelcomePage::openModelRequested);
  way(QStringLiteral("workspace"), tr("Open a workspace…"), tr("A folder that keeps runs and their results."), &WelcomePage::openWorkspaceRequested);

  column->addSpacing(12);
  m_recentTitle = new QLabel(QStringLiteral("<b>%1</b>").arg(tr("Recent")));
  column->addWidget(m_recentTitle);
  m_recent = new QVBoxLayout;
  m_recent->setSpacing(0);
  column->addLayout(m_recent);
  column->addStretch(1);

  auto* centre = new QWidget;
  auto* row = new QHBoxLayout(centre);
  row->addStretch(1);
  row->addWidget(inside, 10);
  row->addStretch(1);
  auto* scroll = new QScrollArea;
  scroll->setFrameShape(QFrame::NoFrame);
  scroll->setWidgetResizable(true);
  scroll->setWidget(centre);
  auto* all = new QVBoxLayout(this);
  all->setContentsMargins(0, 0, 0, 0);
  all->addWidget(scroll);
  setRecent({});
}

void WelcomePage::setRecent(const QStringList& paths) {
  while (QLayoutItem* item = m_recent->takeAt(0)) {
    delete item->widget();
    delete item;
  }
  m_recentTitle->setVisible(!paths.isEmpty());
  for (const QString& path : paths.mid(0, 6)) {
    const QFileInfo info(path);
    auto* button = new PathButton(QStringLiteral("%1   —   %2").arg(info.fileName(), info.path()));
    button->setFlat(true);
    button->setSizePolicy(QSizePolicy::Ignored, QSizePolicy::Fixed);
    button->setToolTip(path);
    connect(button, &QPushButton::clicked, this, [this, path] { Q_EMIT recentRequested(path); });
    m_recent->addWidget(button);
  }
}

}  // namespace qb::views
