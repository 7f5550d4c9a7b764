#pragma once
#include <chrono>
#include <string>
#include <vector>

#include "core/measure/report.h"

namespace qb {

// Bills a run's time and memory to its stages: whatever happens between two calls of at() goes to the stage that the first one named.
// Of this process as a whole, so that one run a process is measured truly. Used on the run's thread.
class CostMeter {
 public:
  explicit CostMeter(std::string device);  // "cpu", "cuda:0"
  void add(const std::vector<StageCost>& earlier);  // what sessions before this one cost
  void at(const std::string& stage);
  std::vector<StageCost> costs();  // up to now, in the order in which stages came first

 private:
  void bill();
  StageCost& entry(const std::string& stage);

  std::string device_, stage_;
  std::vector<StageCost> costs_;
  std::chrono::steady_clock::time_point since_;
  double cpu_since_ = 0;
};

}  // namespace qb
