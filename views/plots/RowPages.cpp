#include "views/plots/RowPages.h"

#include <QCoreApplication>
#include <algorithm>

namespace qb::views {

void RowPages::setRows(int count, QVector<int> kept) {
  std::sort(kept.begin(), kept.end());
  kept.erase(std::unique(kept.begin(), kept.end()), kept.end());
  kept.removeIf([count](int row) { return row < 0 || row >= count; });
  m_count = count;
  m_kept = std::move(kept);
  gather();
}

bool RowPages::fit(int room) {
  const int size = room >= m_count ? std::max(1, m_count) : std::max(3, room - int(m_kept.size()));
  if (size == m_size) return false;
  m_size = size;
  return gather();
}

bool RowPages::show(int page) {
  m_first = std::clamp(page, 0, pages() - 1) * std::max(1, m_size);
  return gather();
}

bool RowPages::reveal(int row) { return row >= 0 && row < m_count && m_size > 0 && !m_visible.contains(row) && show(row / m_size); }

bool RowPages::gather() {
  const QVector<int> before = m_visible;
  const int size = m_size > 0 ? m_size : m_count;
  m_first = size > 0 ? std::clamp(m_first, 0, std::max(0, m_count - 1)) / size * size : 0;
  const int last = std::min(m_count, m_first + size);
  m_visible.clear();
  for (int row = m_first; row < last; ++row) m_visible.push_back(row);
  m_onPage = int(m_visible.size());
  for (const int row : m_kept)
    if (row < m_first || row >= last) m_visible.push_back(row);
  return m_visible != before;
}

QString RowPages::text() const {
  if (pages() < 2) return {};
  return (m_linears ? QCoreApplication::translate("RowPages", "linears %1–%2 of %3") : QCoreApplication::translate("RowPages", "runs %1–%2 of %3")).arg(m_first + 1).arg(m_first + m_onPage).arg(m_count);
}

}  // namespace qb::views
