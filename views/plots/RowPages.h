#pragma once
#include <QString>
#include <QVector>
#include <algorithm>

namespace qb::views {

// Which of many rows a picture shows: as many as have room, a page of them, and below it those that stay in sight on every page.
class RowPages {
 public:
  void setRows(int count, QVector<int> kept);
  bool fit(int room);           // as many rows as have room; whether others are visible now
  bool show(int page);          // whether others are visible now
  bool reveal(int row);         // turns to its page, unless it is in sight; whether others are visible now

  int count() const { return m_count; }
  int pages() const { return m_size > 0 ? std::max(1, (m_count + m_size - 1) / m_size) : 1; }
  int page() const { return m_size > 0 ? m_first / m_size : 0; }
  const QVector<int>& visible() const { return m_visible; }  // the page's, then the others in ascending order
  int onPage() const { return m_onPage; }                    // so many of them are the page's
  QString text() const;         // "runs 17–32 of 40"; empty: all are there
  void setLinears() { m_linears = true; }  // they are no runs

 private:
  bool gather();
  int m_count = 0, m_size = 0, m_first = 0, m_onPage = 0;  // size 0: not laid out yet, all of them
  QVector<int> m_kept, m_visible;
  bool m_linears = false;
};

}  // namespace qb::views
