#include "core/run/conductor.h"

#include <chrono>
#include <utility>

namespace qb {

using namespace std::chrono_literals;

RunConductor::RunConductor(std::filesystem::path run_folder, const RunLock& lock, const Control& outer, RunEventWriter& events)
    : folder_(std::move(run_folder)), lock_(lock), outer_(outer), events_(events), request_(folder_),
      control_{stop_.get_token(), std::make_shared<PauseGate>(), {}, soon_.get_token()},
      outer_stop_(outer.stop, [this] { stop_.request_stop(); }), outer_soon_(outer.stop_soon, [this] { soon_.request_stop(); }) {
  look();
  thread_ = std::jthread([this](const std::stop_token& over) {
    auto renewed = std::chrono::steady_clock::now();
    while (!over.stop_requested()) {
      {
        std::unique_lock sleep(mutex_);
        wake_.wait_for(sleep, over, 100ms, [] { return false; });
      }
      if (over.stop_requested()) return;
      look();
      if (std::chrono::steady_clock::now() - renewed > 15s) {
        lock_.lease().renew();
        const std::lock_guard guard(mutex_);
        if (second_) second_->renew();
        renewed = std::chrono::steady_clock::now();
      }
    }
  });
}

void RunConductor::renew_too(const Lease* lease) {
  const std::lock_guard guard(mutex_);
  second_ = lease;
}

RunConductor::~RunConductor() = default;  // the thread is asked to end, and waited for, before what it uses goes

void RunConductor::look() {
  const auto& request = request_.look();
  if (request && request->wish == Wish::stop) stop_.request_stop();
  if (request && request->wish == Wish::stop_soon) soon_.request_stop();
  const bool hold = (request && request->wish == Wish::hold) || (outer_.gate && outer_.gate->paused());
  if (hold == control_.gate->paused()) return;
  RunEvent event;
  event.kind = hold ? RunEvent::Kind::paused : RunEvent::Kind::resumed;
  events_.write(event);
  hold ? control_.gate->pause() : control_.gate->resume();
}

}  // namespace qb
