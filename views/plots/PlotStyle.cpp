#include "views/plots/PlotStyle.h"

#include <QLocale>
#include <QPainter>
#include <algorithm>
#include <array>
#include <cmath>

namespace qb::views {
namespace {

QColor mix(const QColor& a, const QColor& b, double share) {
  return QColor::fromRgbF(float(a.redF() * share + b.redF() * (1 - share)), float(a.greenF() * share + b.greenF() * (1 - share)),
                          float(a.blueF() * share + b.blueF() * (1 - share)));
}

// Samples at equal distances of matplotlib's maps (CC0): viridis by Smith and van der Walt, cividis by Nuñez et al. 2018.
constexpr std::array<QRgb, 9> kViridis = {0x440154, 0x472d7b, 0x3b528b, 0x2c728e, 0x21918c, 0x28ae80, 0x5ec962, 0xaddc30, 0xfde725};
constexpr std::array<QRgb, 9> kCividis = {0x002051, 0x11366c, 0x3c4d6e, 0x62646f, 0x7f7c75, 0x9a9478, 0xbbaf71, 0xe2cb5c, 0xfdea45};

template <size_t n>
QCPColorGradient gradient(const std::array<QRgb, n>& colours) {
  QCPColorGradient result;
  result.clearColorStops();
  for (size_t i = 0; i < n; ++i) result.setColorStopAt(double(i) / (n - 1), QColor(colours[i]));
  result.setNanHandling(QCPColorGradient::nhTransparent);
  return result;
}

}  // namespace

PlotColours plotColours(const QPalette& palette) {
  PlotColours colours;
  colours.background = palette.color(QPalette::Base);
  colours.text = palette.color(QPalette::Active, QPalette::Text);
  colours.faint = mix(colours.text, colours.background, 0.62);
  colours.grid = mix(colours.text, colours.background, 0.12);
  colours.highlight = palette.color(QPalette::Active, QPalette::Highlight);
  colours.dark = colours.background.lightness() < 128;
  return colours;
}

int markerOf(const QColor& colour, int marker) {
  static constexpr std::array<QRgb, 6> kOrder = {0x0072b2, 0xd55e00, 0x009e73, 0xcc79a7, 0xe69f00, 0x56b4e9};
  const auto place = std::find(kOrder.begin(), kOrder.end(), colour.rgb() & 0xffffff);
  return place == kOrder.end() ? marker : marker + int(place - kOrder.begin());
}

QCPScatterStyle markerStyle(int marker, const QColor& colour, double size, bool filled) {
  static constexpr std::array<QCPScatterStyle::ScatterShape, 6> kShapes = {
      QCPScatterStyle::ssDisc,     QCPScatterStyle::ssSquare,           QCPScatterStyle::ssTriangle,
      QCPScatterStyle::ssDiamond,  QCPScatterStyle::ssTriangleInverted, QCPScatterStyle::ssCross};
  const auto shape = kShapes[size_t(marker % int(kShapes.size()))];
  if (shape == QCPScatterStyle::ssDisc && !filled) return {QCPScatterStyle::ssCircle, QPen(colour, 1.4), Qt::NoBrush, size};
  return {shape, QPen(colour, shape == QCPScatterStyle::ssCross ? 1.8 : 1.2), filled ? QBrush(colour) : QBrush(Qt::NoBrush), size};
}

QPixmap markerPixmap(const QColor& colour, int marker, int side, double ratio, bool filled) {
  QPixmap pixmap(QSize(side, side) * ratio);
  pixmap.setDevicePixelRatio(ratio);
  pixmap.fill(Qt::transparent);
  QCPPainter painter(&pixmap);
  painter.setRenderHint(QPainter::Antialiasing);
  const QCPScatterStyle style = markerStyle(marker, colour, side * 0.7, filled);
  style.applyTo(&painter, QPen(colour));
  style.drawShape(&painter, side / 2.0, side / 2.0);
  return pixmap;
}

QCPColorGradient heatGradient(HeatMap map) { return gradient(map == HeatMap::Viridis ? kViridis : kCividis); }

QCPColorGradient divergingGradient(bool dark) {
  return dark ? gradient(std::array<QRgb, 5>{0x74b9ff, 0x2f6ea8, 0x35393f, 0xb0602a, 0xffb27a})
              : gradient(std::array<QRgb, 5>{0x0b4f8a, 0x74b0db, 0xf1f1ef, 0xf0a368, 0xa34400});
}

QString formatNumber(double value, int digits) {
  if (!std::isfinite(value)) return QStringLiteral("–");
  if (value == 0) return QStringLiteral("0");
  return QLocale().toString(value, 'g', digits);
}

QString formatWithUnit(double value, const QString& unit) {
  const QString number = formatNumber(value);
  return unit.isEmpty() ? number : number + QChar(0xa0) + unit;
}

QString shortName(const QString& name) {
  const qsizetype dot = name.indexOf(QLatin1Char('.'));
  return dot < 0 ? name : name.mid(dot + 1);
}

QString elide(const QString& text, int characters) {
  return text.size() <= characters ? text : text.left(characters - 1) + QChar(0x2026);
}

QVector<double> LogTicker::createTickVector(double, const QCPRange& range) {
  QVector<double> ticks;
  if (!(range.lower > 0) || !(range.upper > range.lower)) return ticks;
  const double low = std::log10(range.lower), high = std::log10(range.upper);
  m_decades = high - low >= 1.7;
  if (m_decades) {
    m_stride = std::max(1, int(std::ceil((high - low) / std::max(2, tickCount() + 1))));
    const int first = int(std::floor(low / m_stride)) * m_stride;
    for (int decade = first; decade <= int(std::ceil(high)) + m_stride; decade += m_stride) ticks.push_back(std::pow(10.0, decade));
    return ticks;
  }
  if (high - low > 0.75) {  // 1, 2, 5 of every decade
    for (int decade = int(std::floor(low)) - 1; decade <= int(std::ceil(high)); ++decade)
      for (const double digit : {1.0, 2.0, 5.0}) ticks.push_back(digit * std::pow(10.0, decade));
    return ticks;
  }
  // So narrow that equal steps serve best.
  const double raw = (range.upper - range.lower) / std::max(2, tickCount());
  const double magnitude = std::pow(10.0, std::floor(std::log10(raw)));
  const double step = magnitude * (raw / magnitude < 1.5 ? 1 : raw / magnitude < 3.2 ? 2 : raw / magnitude < 7 ? 5 : 10);
  for (double at = std::floor(range.lower / step) * step; at <= range.upper + step; at += step)
    if (at > 0) ticks.push_back(at);
  return ticks;
}

QVector<double> LogTicker::createSubTickVector(int, const QVector<double>& ticks) {
  QVector<double> result;
  if (!m_decades || m_stride != 1) return result;
  for (const double tick : ticks)
    for (int digit = 2; digit < 10; ++digit) result.push_back(tick * digit);
  return result;
}

QVector<double> PlaceTicker::createTickVector(double, const QCPRange& range) {
  QVector<double> ticks;
  for (const Place& place : m_places)
    if (range.contains(place.at)) ticks.push_back(place.at);
  if (ticks.size() <= m_most) return ticks;
  const qsizetype stride = (ticks.size() + m_most - 1) / m_most;
  // Anchored at the first place of all, so that panning does not make labels jump.
  QVector<double> thinned;
  for (qsizetype i = 0; i < m_places.size(); i += stride)
    if (range.contains(m_places[i].at)) thinned.push_back(m_places[i].at);
  return thinned;
}

QVector<QString> PlaceTicker::createLabelVector(const QVector<double>& ticks, const QLocale&, QChar, int) {
  QVector<QString> labels;
  for (const double tick : ticks) {
    const auto it = std::lower_bound(m_places.begin(), m_places.end(), tick, [](const Place& place, double at) { return place.at < at; });
    labels.push_back(it == m_places.end() ? QString() : it->label);
  }
  return labels;
}

}  // namespace qb::views
