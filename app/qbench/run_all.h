#pragma once
#include <functional>
#include <optional>
#include <string>

#include "core/run/run.h"

namespace cli {

// One run to carry out: a recipe, or a run of the workspace to go on with.
struct Turn {
  qb::Recipe recipe;
  std::string resume;  // its id; empty: a new run is made of the recipe
  std::string sweep;   // that a new run belongs to
};

struct RunAll {
  qb::Workspace& workspace;
  std::string workspace_path;  // as the user wrote it, for what he is told to type
  qb::RunOptions options;
  bool quiet = false;
  bool alone = false;          // one run: its error is thrown rather than told
};

// Carries runs out one after another, as next() names them when a turn comes; one that fails leaves the others their turn. The exit code
// of the first that failed, `cancelled` after Ctrl-C, else ok.
int run_all(const RunAll& all, const std::function<std::optional<Turn>()>& next, const std::function<void(const qb::RunReport&)>& on_finished);

}  // namespace cli
