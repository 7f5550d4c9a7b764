#pragma once
#include <functional>
#include <optional>
#include <string>

#include "core/run/supervisor.h"

namespace cli {

// One run to carry out: a recipe, or a run of the workspace to go on with.
struct Turn {
  qb::Recipe recipe;
  std::string resume;  // its id; empty: a new run is made of the recipe
  std::string sweep;   // that a new run belongs to
};

struct RunAll {
  std::string workspace;       // as the user wrote it, for what he is told to type
  qb::RunOptions options;
  qb::WorkerStart start;
  bool quiet = false;
  bool alone = false;          // one run: its error is thrown rather than told
};

// Carries runs out one after another, each in a process of its own, as next() names them when a turn comes; one that fails leaves the
// others their turn. The exit code of the first that failed, `cancelled` after Ctrl-C, else ok. Keeps no workspace open while a
// worker is started: a copy of this process would have a copy of its index.
int run_all(const RunAll& all, const std::function<std::optional<Turn>()>& next, const std::function<void(const qb::RunReport&)>& on_finished);

}  // namespace cli
