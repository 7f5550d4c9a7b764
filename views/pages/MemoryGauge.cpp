#include "views/pages/MemoryGauge.h"

#include <QPainter>
#include <QTimer>
#include <algorithm>

#include "core/base/control.h"
#include "views/models/Format.h"

namespace qb::views {

MemoryGauge::MemoryGauge(QWidget* parent) : QWidget(parent) {
  auto* timer = new QTimer(this);
  timer->setInterval(1000);
  connect(timer, &QTimer::timeout, this, &MemoryGauge::measure);
  timer->start();
  setSizePolicy(QSizePolicy::Fixed, QSizePolicy::Preferred);
  measure();
}

void MemoryGauge::setTotal(qint64 bytes) {
  m_total = bytes;
  measure();
}

QSize MemoryGauge::sizeHint() const { return {fontMetrics().horizontalAdvance(QStringLiteral("999.9 MiB of 999 GiB")) + 12, fontMetrics().height() + 10}; }

void MemoryGauge::measure() {
  m_now = resident_bytes();
  m_peak = peak_resident_bytes();
  const QString text = tr("Memory of the program: %1 now, %2 at most, %3 in the machine").arg(formatBytes(double(m_now)), formatBytes(double(m_peak)), formatBytes(double(m_total)));
  setToolTip(text);
  setAccessibleName(text);
  update();
}

void MemoryGauge::paintEvent(QPaintEvent*) {
  QPainter painter(this);
  painter.setRenderHint(QPainter::Antialiasing);
  const QRect line(6, height() - 7, width() - 12, 3);
  painter.setPen(Qt::NoPen);
  painter.setBrush(palette().color(QPalette::Mid));
  painter.drawRoundedRect(line, 1.5, 1.5);
  if (m_total > 0) {
    painter.setBrush(palette().color(QPalette::Highlight));
    const double part = std::clamp(double(m_now) / double(m_total), 0.0, 1.0);
    painter.drawRoundedRect(QRectF(line.left(), line.top(), std::max(3.0, part * line.width()), line.height()), 1.5, 1.5);
  }
  painter.setPen(palette().color(QPalette::WindowText));
  painter.drawText(QRect(0, 0, width(), height() - 7), Qt::AlignCenter,
                   m_total > 0 ? tr("%1 of %2").arg(formatBytes(double(m_now)), formatBytes(double(m_total))) : formatBytes(double(m_now)));
}

}  // namespace qb::views
