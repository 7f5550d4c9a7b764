#include "views/models/Format.h"

#include <QCoreApplication>
#include <QLocale>
#include <cmath>

namespace qb::views {
namespace {
QString none() { return QStringLiteral("–"); }
QString tr(const char* text) { return QCoreApplication::translate("Format", text); }
}  // namespace

QString formatBytes(double bytes) {
  if (!(bytes > 0)) return none();
  static const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  while (bytes >= 1024 && unit < 4) {
    bytes /= 1024;
    ++unit;
  }
  return QLocale().toString(bytes, 'f', unit == 0 || bytes >= 100 ? 0 : 1) + QChar(0xa0) + QLatin1String(units[unit]);
}

QString formatDuration(double seconds) {
  if (!(seconds >= 0)) return none();
  const auto whole = qint64(std::llround(seconds));
  if (seconds < 9.95) return tr("%1 s").arg(QLocale().toString(seconds, 'f', 1));
  if (whole < 60) return tr("%1 s").arg(whole);
  if (whole < 3600) return tr("%1 min %2 s").arg(whole / 60).arg(whole % 60, 2, 10, QLatin1Char('0'));
  return tr("%1 h %2 min").arg(whole / 3600).arg(whole / 60 % 60, 2, 10, QLatin1Char('0'));
}

QString formatCount(double count) {
  static const char* const units[] = {"", "K", "M", "B", "T"};
  int unit = 0;
  while (count >= 1000 && unit < 4) {
    count /= 1000;
    ++unit;
  }
  return QLocale().toString(count, 'f', unit == 0 ? 0 : 1) + (unit ? QChar(0xa0) + QString::fromLatin1(units[unit]) : QString());
}

QString formatPerplexity(double value) {
  if (!(value > 0) || !std::isfinite(value)) return none();
  if (value >= 1e6) return QLocale().toString(value, 'e', 2);
  const int decimals = value >= 1000 ? 0 : value >= 100 ? 1 : value >= 10 ? 2 : 3;
  return QLocale().toString(value, 'f', decimals);
}

}  // namespace qb::views
