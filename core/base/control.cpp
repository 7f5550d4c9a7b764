#include "core/base/control.h"

#include <algorithm>
#include <fstream>

namespace qb {

void PauseGate::pause() {
  std::lock_guard lock(mutex_);
  paused_ = true;
}

void PauseGate::resume() {
  {
    std::lock_guard lock(mutex_);
    paused_ = false;
  }
  condition_.notify_all();
}

bool PauseGate::paused() const {
  std::lock_guard lock(mutex_);
  return paused_;
}

void PauseGate::wait(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  condition_.wait(lock, stop, [this] { return !paused_; });
}

static int64_t status_field(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind(field, 0) == 0) return std::stoll(line.substr(field.size())) * 1024;
  return 0;
}

int64_t resident_bytes() { return status_field("VmRSS:"); }

static std::atomic<int64_t> earlier_peak{0};

int64_t peak_resident_bytes() { return std::max(earlier_peak.load(), status_field("VmHWM:")); }

int64_t take_peak_resident_bytes() {
  const int64_t peak = status_field("VmHWM:");
  earlier_peak = std::max(earlier_peak.load(), peak);
  std::ofstream("/proc/self/clear_refs") << "5";  // without the right to do so, the peaks of parts are those of all so far
  return peak;
}

}  // namespace qb
