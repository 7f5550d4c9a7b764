#include "views/pages/Delegates.h"

#include <QApplication>
#include <QKeyEvent>
#include <QMouseEvent>
#include <QPainter>
#include <algorithm>

#include "views/Icons.h"
#include "views/Theme.h"
#include "views/models/JobList.h"
#include "views/models/RunList.h"
#include "views/plots/PlotStyle.h"

namespace qb::views {
namespace {

void paintBackground(QPainter* painter, const QStyleOptionViewItem& option, const QModelIndex& index) {
  QStyleOptionViewItem plain = option;
  plain.index = index;
  plain.text.clear();
  plain.features &= ~(QStyleOptionViewItem::HasCheckIndicator | QStyleOptionViewItem::HasDisplay);
  const QStyle* style = option.widget ? option.widget->style() : QApplication::style();
  style->drawControl(QStyle::CE_ItemViewItem, &plain, painter, option.widget);
}

}  // namespace

void EyeDelegate::paint(QPainter* painter, const QStyleOptionViewItem& option, const QModelIndex& index) const {
  paintBackground(painter, option, index);
  const bool shown = index.data(Qt::CheckStateRole).toInt() == Qt::Checked;
  const QColor colour = index.data(RunList::ColourRole).value<QColor>();
  const QRect box = option.rect;
  const int side = 16;
  const QRect eye(box.left() + 5, box.center().y() - side / 2 + 1, side, side);
  const bool selected = option.state & QStyle::State_Selected;
  icon(shown ? QStringLiteral("eye") : QStringLiteral("eye-off")).paint(painter, eye, Qt::AlignCenter, selected ? QIcon::Selected : QIcon::Normal);
  painter->save();
  painter->setRenderHint(QPainter::Antialiasing);
  const QRect mark(eye.right() + 4, box.center().y() - 7, 15, 15);
  if (selected) {  // the colour may be close to the highlight's
    painter->setPen(Qt::NoPen);
    painter->setBrush(Qt::white);
    painter->drawEllipse(mark);
  }
  // The shape that the plots draw. Filled: in the plots; hollow: known, but not drawn.
  const double ratio = painter->device()->devicePixelRatioF();
  painter->drawPixmap(mark.topLeft(), markerPixmap(colour, markerOf(colour, index.data(RunList::MarkerRole).toInt()), mark.width(), ratio, shown));
  painter->restore();
}

QSize EyeDelegate::sizeHint(const QStyleOptionViewItem& option, const QModelIndex& index) const {
  return {44, std::max(24, QStyledItemDelegate::sizeHint(option, index).height())};
}

bool EyeDelegate::editorEvent(QEvent* event, QAbstractItemModel* model, const QStyleOptionViewItem&, const QModelIndex& index) {
  bool toggles = false;
  if (event->type() == QEvent::MouseButtonRelease) toggles = static_cast<QMouseEvent*>(event)->button() == Qt::LeftButton;
  if (event->type() == QEvent::MouseButtonDblClick) return true;
  if (event->type() == QEvent::KeyPress) {
    const int key = static_cast<QKeyEvent*>(event)->key();
    toggles = key == Qt::Key_Space || key == Qt::Key_Select;
  }
  if (!toggles) return false;
  const bool shown = index.data(Qt::CheckStateRole).toInt() == Qt::Checked;
  return model->setData(index, shown ? Qt::Unchecked : Qt::Checked, Qt::CheckStateRole);
}

QSize RoomyDelegate::sizeHint(const QStyleOptionViewItem& option, const QModelIndex& index) const {
  return QStyledItemDelegate::sizeHint(option, index) + QSize(0, 5);
}

void ProgressDelegate::paint(QPainter* painter, const QStyleOptionViewItem& option, const QModelIndex& index) const {
  paintBackground(painter, option, index);
  const double fraction = std::clamp(index.data(JobList::FractionRole).toDouble(), 0.0, 1.0);
  const auto state = JobState(index.data(JobList::StateRole).toInt());
  const bool selected = option.state & QStyle::State_Selected;
  const QPalette& palette = option.palette;
  const QString text = index.data().toString();
  const int width = option.fontMetrics.horizontalAdvance(QStringLiteral("100 %")) + 6;
  QRectF bar = QRectF(option.rect).adjusted(4, 0, -width - 4, 0);
  bar = QRectF(bar.left(), bar.center().y() - 4, bar.width(), 8);
  const QColor fill = state == JobState::Failed                                       ? Theme::error()
                      : state == JobState::Paused || state == JobState::Held          ? Theme::warning()
                      : state == JobState::Cancelled || state == JobState::Stopping   ? Theme::faintText()
                      : state == JobState::Finished                                   ? Theme::success()
                                                                                      : palette.color(QPalette::Highlight);
  painter->save();
  painter->setRenderHint(QPainter::Antialiasing);
  painter->setPen(Qt::NoPen);
  painter->setBrush(selected ? QColor(255, 255, 255, 70) : palette.color(QPalette::Mid));
  painter->drawRoundedRect(bar, 4, 4);
  painter->setBrush(selected ? QColor(Qt::white) : fill);
  if (fraction > 0) {
    painter->setClipRect(QRectF(bar.left(), bar.top(), bar.width() * fraction, bar.height()));
    painter->drawRoundedRect(bar, 4, 4);
    painter->setClipping(false);
  }
  painter->setPen(palette.color(selected ? QPalette::HighlightedText : QPalette::Text));
  painter->drawText(option.rect.adjusted(0, 0, -4, 0), Qt::AlignRight | Qt::AlignVCenter, text);
  painter->restore();
}

void SparklineDelegate::paint(QPainter* painter, const QStyleOptionViewItem& option, const QModelIndex& index) const {
  paintBackground(painter, option, index);
  const auto samples = index.data(JobList::SamplesRole).value<QVector<double>>();
  const bool selected = option.state & QStyle::State_Selected;
  const QPalette& palette = option.palette;
  const QString text = index.data().toString();
  const int width = option.fontMetrics.horizontalAdvance(QStringLiteral("0000 MiB")) + 6;
  painter->save();
  painter->setRenderHint(QPainter::Antialiasing);
  const QRectF area = QRectF(option.rect).adjusted(4, 4, -width - 4, -4);
  if (samples.size() > 1 && area.width() > 8) {
    const double highest = *std::max_element(samples.begin(), samples.end());
    QPolygonF line;
    for (int i = 0; i < samples.size(); ++i)
      line << QPointF(area.left() + area.width() * i / double(samples.size() - 1),
                      area.bottom() - (highest > 0 ? area.height() * samples[i] / highest : 0));
    QColor colour = selected ? QColor(Qt::white) : palette.color(QPalette::Highlight);
    QPolygonF below = line;
    below << area.bottomRight() << area.bottomLeft();
    QColor tint = colour;
    tint.setAlpha(50);
    painter->setPen(Qt::NoPen);
    painter->setBrush(tint);
    painter->drawPolygon(below);
    painter->setPen(QPen(colour, 1.3));
    painter->setBrush(Qt::NoBrush);
    painter->drawPolyline(line);
  }
  painter->setPen(palette.color(selected ? QPalette::HighlightedText : QPalette::Text));
  painter->drawText(option.rect.adjusted(0, 0, -4, 0), Qt::AlignRight | Qt::AlignVCenter, text);
  painter->restore();
}

}  // namespace qb::views
