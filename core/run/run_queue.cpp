#include "core/run/run_queue.h"

#include <algorithm>
#include <tuple>

#include "core/base/error.h"

namespace qb {

std::vector<QueuedRun> queued_runs(const Workspace& workspace) { return queued_runs(workspace, workspace.list()); }

std::vector<QueuedRun> queued_runs(const Workspace& workspace, const std::vector<RunReport>& runs) {
  std::vector<QueuedRun> queue;
  for (const RunReport& report : runs) {
    if (report.status == RunStatus::finished) continue;
    std::optional<RunRequest> request;
    try {
      request = load_request(workspace.run_folder(report.id));
    } catch (const InputError&) {
      continue;  // whoever resumes it writes the file anew
    }
    auto owner = workspace.owner(report.id);
    if (!request && !owner) continue;
    queue.push_back({report, request.value_or(RunRequest{}), std::move(owner)});
  }
  std::stable_sort(queue.begin(), queue.end(), [](const QueuedRun& a, const QueuedRun& b) {
    return std::tuple(!a.owner, -a.request.priority, a.request.place, a.report.id) < std::tuple(!b.owner, -b.request.priority, b.request.place, b.report.id);
  });
  return queue;
}

std::optional<std::string> next_waiting(const std::filesystem::path& workspace, const std::string& device) {
  const auto open = Workspace::open(workspace, Workspace::Absent::refuse);
  for (const QueuedRun& run : queued_runs(*open))
    if (!run.owner && run.request.wish == Wish::run && run.request.device == device && run.request.attempts < kMostAttempts) return run.report.id;
  return std::nullopt;
}

double last_place(const std::vector<QueuedRun>& queue) {
  double last = 0;
  for (const QueuedRun& run : queue) last = std::max(last, run.request.place);
  return last + 1;
}

double place_before(const std::vector<QueuedRun>& queue, const std::string& id, const std::string& other) {
  const auto found = std::find_if(queue.begin(), queue.end(), [&](const QueuedRun& run) { return run.report.id == other; });
  if (found == queue.end()) throw InputError("there is no run \"" + other + "\" in the queue");
  double before = found->request.place - 1;
  for (auto at = queue.begin(); at != found; ++at)
    if (at->report.id != id && at->request.priority == found->request.priority) before = at->request.place;
  return (before + found->request.place) / 2;
}

}  // namespace qb
