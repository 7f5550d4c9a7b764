#pragma once
#include <QString>

namespace qb::views {

// "3.4 MiB"; "–" for 0 or less.
QString formatBytes(double bytes);
// "12 s", "3 min 20 s", "2 h 05 min"; "–" when negative.
QString formatDuration(double seconds);
// 134515008 → "134.5 M"
QString formatCount(double count);
// Four significant digits, never in exponent form for everyday figures; "–" when not finite or not measured (≤ 0).
QString formatPerplexity(double value);

}  // namespace qb::views
