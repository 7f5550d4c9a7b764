#pragma once
#include <functional>

#include "core/run/supervisor.h"

namespace cli {

// Runs an action in a copy of this process and gives its exit code: this one stays free of compute threads and open databases.
int in_child(const std::function<int()>& action);

// A worker that is a copy of this process, and dies with it. A WorkerStart.
int fork_worker(const qb::WorkOrder& order);

}  // namespace cli
