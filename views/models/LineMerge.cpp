#include "views/models/LineMerge.h"

#include <QStringList>
#include <algorithm>
#include <vector>

namespace qb::views {
namespace {

// The comment behind a line's content, with the space before it; a # inside quotes is content.
qsizetype commentStart(const QString& line) {
  QChar quote;
  for (qsizetype i = 0; i < line.size(); ++i) {
    const QChar c = line[i];
    if (!quote.isNull()) {
      if (c == quote) quote = QChar();
    } else if (c == QLatin1Char('"') || c == QLatin1Char('\'')) {
      quote = c;
    } else if (c == QLatin1Char('#') && (i == 0 || line[i - 1].isSpace())) {
      while (i > 0 && line[i - 1].isSpace()) --i;
      return i;
    }
  }
  return line.size();
}

QString content(const QString& line) {
  QString text = line.left(commentStart(line));
  while (!text.isEmpty() && text.back().isSpace()) text.chop(1);
  return text;
}

struct Hunk {
  qsizetype baseBegin, baseEnd, newBegin, newEnd;
};

// Longest common subsequence; recipes have a hundred lines, so the quadratic table is nothing.
std::vector<Hunk> differences(const QStringList& a, const QStringList& b) {
  const qsizetype n = a.size(), m = b.size();
  std::vector<std::vector<int>> length(size_t(n + 1), std::vector<int>(size_t(m + 1), 0));
  for (qsizetype i = n - 1; i >= 0; --i)
    for (qsizetype j = m - 1; j >= 0; --j)
      length[size_t(i)][size_t(j)] = a[i] == b[j] ? length[size_t(i + 1)][size_t(j + 1)] + 1
                                                  : std::max(length[size_t(i + 1)][size_t(j)], length[size_t(i)][size_t(j + 1)]);
  std::vector<Hunk> hunks;
  qsizetype i = 0, j = 0;
  while (i < n || j < m) {
    if (i < n && j < m && a[i] == b[j]) {
      ++i, ++j;
      continue;
    }
    Hunk hunk{i, i, j, j};
    while ((i < n || j < m) && !(i < n && j < m && a[i] == b[j])) {
      if (j >= m || (i < n && length[size_t(i + 1)][size_t(j)] >= length[size_t(i)][size_t(j + 1)]))
        ++i;
      else
        ++j;
    }
    hunk.baseEnd = i;
    hunk.newEnd = j;
    hunks.push_back(hunk);
  }
  return hunks;
}

}  // namespace

std::optional<QString> mergeLines(const QString& base, const QString& changed, const QString& mine) {
  const QStringList baseLines = base.split(QLatin1Char('\n')), newLines = changed.split(QLatin1Char('\n'));
  if (baseLines.size() > 2000 || newLines.size() > 2000) return std::nullopt;
  QStringList lines = mine.split(QLatin1Char('\n'));
  if (lines.size() > 2000) return std::nullopt;
  QStringList plain;
  for (const QString& line : lines) plain << content(line);

  // Where each base line stands in `mine`: the alignment of the two by content.
  std::vector<qsizetype> at(size_t(baseLines.size()), -1);
  {
    qsizetype b = 0, l = 0;
    for (const Hunk& hunk : differences(baseLines, plain)) {
      for (; b < hunk.baseBegin; ++b, ++l) at[size_t(b)] = l;
      b = hunk.baseEnd;
      l = hunk.newEnd;
    }
    for (; b < baseLines.size() && l < lines.size(); ++b, ++l) at[size_t(b)] = l;
  }

  auto hunks = differences(baseLines, newLines);
  std::reverse(hunks.begin(), hunks.end());  // from below, so that positions above stay true
  for (const Hunk& hunk : hunks) {
    const QStringList fresh = newLines.mid(hunk.newBegin, hunk.newEnd - hunk.newBegin);
    if (hunk.baseBegin == hunk.baseEnd) {
      // Pure insertion: behind the line before it, or before the line after it.
      qsizetype place = -1;
      if (hunk.baseBegin > 0 && at[size_t(hunk.baseBegin - 1)] >= 0) place = at[size_t(hunk.baseBegin - 1)] + 1;
      else if (hunk.baseBegin < baseLines.size() && at[size_t(hunk.baseBegin)] >= 0) place = at[size_t(hunk.baseBegin)];
      if (place < 0) return std::nullopt;
      for (qsizetype i = 0; i < fresh.size(); ++i) lines.insert(place + i, fresh[i]);
      continue;
    }
    for (qsizetype b = hunk.baseBegin; b < hunk.baseEnd; ++b)
      if (at[size_t(b)] < 0) return std::nullopt;
    const qsizetype first = at[size_t(hunk.baseBegin)];
    const bool pairs = fresh.size() == hunk.baseEnd - hunk.baseBegin;
    for (qsizetype b = hunk.baseEnd - 1; b >= hunk.baseBegin; --b) {
      const qsizetype line = at[size_t(b)];
      if (pairs)
        lines[line] = fresh[b - hunk.baseBegin] + lines[line].mid(commentStart(lines[line]));
      else
        lines.removeAt(line);
    }
    if (!pairs)
      for (qsizetype i = 0; i < fresh.size(); ++i) lines.insert(first + i, fresh[i]);
  }
  return lines.join(QLatin1Char('\n'));
}

}  // namespace qb::views
