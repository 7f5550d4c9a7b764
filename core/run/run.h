#pragma once
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/base/control.h"
#include "core/store/workspace.h"

namespace qb {

// What happens while a recipe is carried out. Called on the worker thread; all may be empty.
struct RunObserver {
  std::function<void(const BlockReport&)> on_block;
  std::function<void(const EvaluationResult&)> on_estimate;  // running figure of an evaluation
  std::function<void(const std::string&)> on_log;
  std::function<void(const std::string& reason)> on_wait;  // for its device or for memory; until the next call of another kind
  std::function<void(bool held)> on_hold;                  // stands still from now on, or goes on, whoever wanted that
};

struct RunOptions {
  std::string device = "cpu";
  // Of the workspace's statistics cache; 0: none is kept or read, nullopt: 20 GB, or a tenth of the disk's free space.
  std::optional<int64_t> statistics_cache_bytes;
  int threads = 0;  // of the CPU; 0: compute_threads()
  // Asks who follows a run in another process to leave it to itself; the run goes on.
  std::stop_token leave;
};

// Carries out (or resumes) the run `id` of a workspace; of one that is finished and sound nothing is touched. Calibrate, quantize, measure, evaluate; the report is saved after
// every block. Returns the finished report. On Cancelled the run is left resumable and Cancelled is rethrown; on any
// other error the report says so and the error is rethrown. Torch-free header: views call this from a worker thread.
RunReport carry_out(Workspace& workspace, const std::string& id, const RunOptions& options, const Control& control,
                    const RunObserver& observer = {});

// Checks a recipe against its model, data, target and the disk of the workspace before any work. Throws as carry_out would; returns
// what its user should know.
std::vector<std::string> preflight(const Recipe& recipe, const RunOptions& options = {}, const std::filesystem::path& workspace = ".");

}  // namespace qb
