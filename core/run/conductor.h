#pragma once
#include <condition_variable>
#include <filesystem>
#include <memory>
#include <mutex>
#include <stop_token>
#include <thread>

#include "core/base/control.h"
#include "core/store/run_events.h"
#include "core/store/run_lock.h"
#include "core/store/run_request.h"

namespace qb {

// Lets a run at work be conducted through its folder, by any process that may write it: looks at its request several times a second,
// renews the lease, and tells followers when the run stands still. What its caller's own control says counts as well.
class RunConductor {
 public:
  RunConductor(std::filesystem::path run_folder, const RunLock& lock, const Control& outer, RunEventWriter& events);
  ~RunConductor();
  RunConductor(const RunConductor&) = delete;
  RunConductor& operator=(const RunConductor&) = delete;

  const Control& control() const { return control_; }  // reports to nobody
  // Another lease of the run's process, renewed as well; nullptr: none any more.
  void renew_too(const Lease* lease);
  // Whether the run was asked to make room, and nobody wanted it to end.
  bool only_soon() const { return soon_.stop_requested() && !stop_.stop_requested(); }

 private:
  void look();

  std::filesystem::path folder_;
  const RunLock& lock_;
  const Control& outer_;
  RunEventWriter& events_;
  RequestWatch request_;
  std::stop_source stop_, soon_;
  Control control_;
  std::stop_callback<std::function<void()>> outer_stop_, outer_soon_;
  const Lease* second_ = nullptr;
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::jthread thread_;
};

}  // namespace qb
