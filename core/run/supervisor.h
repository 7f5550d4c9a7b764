#pragma once
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/run/run.h"

namespace qb {

// The death of a run's process, or its end because it was asked to make room. The run can be resumed.
struct Interrupted : Error {
  explicit Interrupted(const std::string& message) : Error(ErrorKind::resource, message) {}
};

// Who followed a run was asked to leave; the run goes on without.
struct LeftAlone : Error {
  LeftAlone() : Error(ErrorKind::cancelled, "the run goes on by itself") {}
};

// What a worker process is to do.
struct WorkOrder {
  std::filesystem::path workspace;
  std::string run;
  RunOptions options;
};

// Starts a worker and returns its process number. Throws ResourceError.
using WorkerStart = std::function<int(const WorkOrder&)>;

// "qbench work" in a session of its own: it outlives whoever starts it. What it says on standard error goes to the run's "worker.txt".
WorkerStart detached_worker(std::filesystem::path qbench);
// The same program as this one, "qbench": its worker dies with the process that starts it.
WorkerStart attached_worker();
// Starts a process that carries out what waits in a workspace's queue for a device, and lives on.
void start_queue(const std::filesystem::path& workspace, const RunOptions& options, const std::filesystem::path& qbench);
// The program "qbench" beside the one that runs. Throws ResourceError when there is none.
std::filesystem::path qbench_program();

// Has a run carried out by a worker and follows it until it ends, calling the observer as carry_out would; one that is already at work, here
// or on another machine, is followed. Control is handed on through the run's folder, so that any process may conduct the same run.
// Throws what the run failed with, Cancelled, LeftAlone, or Interrupted, which is written into its report.
void supervise(const WorkOrder& order, const Control& control, const RunObserver& observer, const WorkerStart& start);

// Follows a run that another process carries out, here or on another machine, until it ends; returns its report. Throws as supervise().
RunReport follow_run(Workspace& workspace, const std::string& id, const RunOptions& options, const Control& control, const RunObserver& observer);

// The same for who has the workspace open: carry_out in a process of its own.
RunReport carry_out_in_worker(Workspace& workspace, const std::string& id, const RunOptions& options, const Control& control, const RunObserver& observer, const WorkerStart& start);

}  // namespace qb
