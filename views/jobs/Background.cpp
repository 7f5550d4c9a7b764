#include "views/jobs/Background.h"

namespace qb::views {

Background::Background(QObject* parent) : QObject(parent) { m_pool.setMaxThreadCount(3); }

Background::~Background() {
  for (auto& [serial, stop] : m_stops) stop.request_stop();
  m_pool.clear();
  m_pool.waitForDone();
}

quint64 Background::begin(const QString& slot) {
  const quint64 serial = ++m_serial;
  if (!slot.isEmpty()) {
    cancel(slot);
    m_latest[slot] = serial;
  }
  m_stops.emplace(serial, std::stop_source());
  return serial;
}

bool Background::end(const QString& slot, quint64 serial) {
  m_stops.erase(serial);
  if (slot.isEmpty()) return true;
  if (m_latest.value(slot) != serial) return false;
  m_latest.remove(slot);
  return true;
}

void Background::cancel(const QString& slot) {
  if (const auto it = m_latest.find(slot); it != m_latest.end()) {
    if (const auto stop = m_stops.find(*it); stop != m_stops.end()) stop->second.request_stop();
    m_latest.erase(it);
  }
}

}  // namespace qb::views
