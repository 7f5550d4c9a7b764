#include "core/run/cost_meter.h"

#include <algorithm>
#include <utility>

#include "core/base/control.h"
#include "core/base/process.h"
#include "core/engine/device.h"

namespace qb {

CostMeter::CostMeter(std::string device)
    : device_(std::move(device)), since_(std::chrono::steady_clock::now()), cpu_since_(cpu_seconds()) {
  take_peak_resident_bytes();
}

void CostMeter::add(const std::vector<StageCost>& earlier) {
  for (const StageCost& cost : earlier) {
    StageCost& sum = entry(cost.stage);
    sum.seconds += cost.seconds;
    sum.cpu_seconds += cost.cpu_seconds;
    sum.device_seconds += cost.device_seconds;
    sum.peak_rss_bytes = std::max(sum.peak_rss_bytes, cost.peak_rss_bytes);
    sum.peak_device_bytes = std::max(sum.peak_device_bytes, cost.peak_device_bytes);
  }
}

void CostMeter::at(const std::string& stage) {
  if (stage == stage_) return;
  bill();
  stage_ = stage;
}

std::vector<StageCost> CostMeter::costs() {
  bill();
  return costs_;
}

StageCost& CostMeter::entry(const std::string& stage) {
  const auto found = std::find_if(costs_.begin(), costs_.end(), [&](const StageCost& cost) { return cost.stage == stage; });
  return found != costs_.end() ? *found : costs_.emplace_back(StageCost{stage});
}

void CostMeter::bill() {
  const auto now = std::chrono::steady_clock::now();
  const double cpu = cpu_seconds();
  const int64_t peak = take_peak_resident_bytes(), device_peak = take_peak_device_bytes(device_);
  if (!stage_.empty()) {
    StageCost& cost = entry(stage_);
    const double seconds = std::chrono::duration<double>(now - since_).count();
    cost.seconds += seconds;
    cost.cpu_seconds += cpu - cpu_since_;
    if (device_ != "cpu") cost.device_seconds += seconds;  // a run has its device to itself
    cost.peak_rss_bytes = std::max(cost.peak_rss_bytes, peak);
    cost.peak_device_bytes = std::max(cost.peak_device_bytes, device_peak);
  }
  since_ = now;
  cpu_since_ = cpu;
}

}  // namespace qb
