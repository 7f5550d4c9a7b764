#pragma once
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/run/run_plan.h"
#include "core/store/workspace.h"

namespace qb {

// How long and how large a run is likely to be.
struct CostEstimate {
  double load_seconds = 0, quantize_seconds = 0, evaluate_seconds = 0;
  double memory_bytes = 0, device_bytes = 0, disk_bytes = 0;  // as RunPlan has them
  bool guess = false;   // no run of the kind was measured on this host
  std::string basis;    // of what it is made: "3 runs of awq → gptq on this host", "no run of gptq on this host yet: by rtn's"
  double seconds() const { return load_seconds + quantize_seconds + evaluate_seconds; }
};

// What one finished run took, by what it computed.
struct RunTiming {
  std::string run, device, cpu, model_hash, model_path;
  int threads = 0;
  bool statistics_known = false;  // came from an earlier run
  double load_seconds = 0, passes_seconds = 0, measure_seconds = 0, other_seconds = 0;
  RunWork work;                   // with seconds
};

// Timings of the workspace's finished runs on this host, kept in its file cache/timings-HOST.json: a run is read once. Torch-free.
class Timings {
 public:
  // Reads the file, adds runs that finished since, at most `most` of them (the newest), and writes it again if it can.
  static Timings of(const Workspace& workspace, int most = 200);
  explicit Timings(std::vector<RunTiming> runs = {}) : runs_(std::move(runs)) {}
  const std::vector<RunTiming>& runs() const { return runs_; }

 private:
  std::vector<RunTiming> runs_;
};

// Estimates of runs that stand behind one another: what the first one leaves (a float model's figures, statistics) the next ones have.
class Estimator {
 public:
  // threads: that it will compute with; 0: as many as this program does.
  Estimator(Timings timings, std::string device, int threads = 0);
  CostEstimate next(const RunPlan& plan);

 private:
  Timings timings_;
  std::string device_, cpu_;
  int threads_;
  std::set<std::string> float_known_, statistics_known_;
};

// Linear in few features, none of which counts below zero: least squares by coordinates. rows: features and what was measured.
std::vector<double> fit_positive(const std::vector<std::vector<double>>& rows, const std::vector<double>& measured);

}  // namespace qb
