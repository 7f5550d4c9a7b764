#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/measure/report.h"
#include "core/store/run_request.h"
#include "core/store/workspace.h"

namespace qb {

// A run that waits for its turn or is at work.
struct QueuedRun {
  RunReport report;  // without blocks
  RunRequest request;
  std::optional<RunOwner> owner;  // who works on it
};

// After how many deaths in a row without a finished block a run is not started again by itself.
constexpr int kMostAttempts = 3;

// The queue of a workspace as its run folders say, in order: those at work first, then by priority and place.
std::vector<QueuedRun> queued_runs(const Workspace& workspace);
std::vector<QueuedRun> queued_runs(const Workspace& workspace, const std::vector<RunReport>& runs);  // of its list()
// Opens the workspace for a moment. The first run that waits for a device and is nobody's; nullopt: none does.
std::optional<std::string> next_waiting(const std::filesystem::path& workspace, const std::string& device);
// Behind all that wait.
double last_place(const std::vector<QueuedRun>& queue);
// A place for a run right before or behind another one of the queue.
double place_before(const std::vector<QueuedRun>& queue, const std::string& id, const std::string& other);

}  // namespace qb
