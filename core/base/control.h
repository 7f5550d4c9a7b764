#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>

#include "core/base/error.h"

namespace qb {

// Where a job stands. Fractions are of the whole job; times in seconds; memory in bytes.
struct Progress {
  std::string phase;   // "load", "calibrate", "quantize", "evaluate", "save"
  std::string stage;   // method at work ("awq", "gptq", "rtn"), or the corpus of an evaluation
  int block = -1;      // current decoder block, -1 outside blocks
  int blocks = 0;
  std::string linear;  // current linear's module name, may be empty
  double fraction = 0;
  double elapsed_s = 0;
  double eta_s = -1;           // -1: not known yet
  int64_t rss_bytes = 0;       // resident memory now
  int64_t peak_rss_bytes = 0;  // highest resident memory of the job's process so far
  int64_t device_bytes = 0;    // that tensors have taken of a GPU's memory at most
  std::string message;         // one line for the log, may be empty
};

// Blocks whoever waits while paused. Shared by a job and its owner.
class PauseGate {
 public:
  void pause();
  void resume();
  bool paused() const;
  // Returns at once unless paused; a requested stop ends the wait.
  void wait(const std::stop_token& stop);

 private:
  mutable std::mutex mutex_;
  std::condition_variable_any condition_;
  bool paused_ = false;
};

// What long work takes along: cancellation, pausing, and where to report. Copyable; callbacks run on the worker thread.
struct Control {
  std::stop_token stop;
  std::shared_ptr<PauseGate> gate;
  std::function<void(const Progress&)> on_progress;
  std::stop_token stop_soon;  // asks to end where nothing is lost: after the block at work

  // Throws Cancelled when a stop was requested; waits while paused. Call at least once a linear.
  void checkpoint() const {
    if (stop.stop_requested()) throw Cancelled();
    if (gate) gate->wait(stop);
    if (stop.stop_requested()) throw Cancelled();
  }
  // Called where everything so far is durable.
  void milestone() const {
    if (stop_soon.stop_requested()) throw Cancelled();
  }
  void report(const Progress& progress) const {
    if (on_progress) on_progress(progress);
  }
};

// Resident and peak resident memory of this process in bytes, from /proc/self/status; 0 where it is absent.
int64_t resident_bytes();
int64_t peak_resident_bytes();
// The peak since this was called last, or since the process began. The system's own mark is put back, so that
// /usr/bin/time and others see the last part alone.
int64_t take_peak_resident_bytes();

}  // namespace qb
