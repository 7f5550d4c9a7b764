#include "run_all.h"

#include <fmt/format.h>

#include <iostream>

#include "cli.h"
#include "core/base/error.h"

namespace cli {

int run_all(const RunAll& all, const std::function<std::optional<Turn>()>& next, const std::function<void(const qb::RunReport&)>& on_finished) {
  int code = ok;
  while (const auto turn = next()) {
    // A run is made when its turn comes: none is left waiting for a command that has ended.
    std::string id = turn->resume, name;
    {
      const auto workspace = qb::Workspace::open(all.workspace, id.empty() ? qb::Workspace::Absent::create : qb::Workspace::Absent::refuse);
      if (id.empty()) id = workspace->create_run(turn->recipe, turn->sweep);
      name = workspace->load(id).name;
    }
    const std::string go_on = fmt::format("go on with: qbench run --workspace {} --resume {}", all.workspace, id);
    ProgressBar bar(name);
    qb::Control control{interrupt_token(), nullptr, {}};
    qb::RunObserver observer;
    if (!all.quiet) {
      control.on_progress = [&](const qb::Progress& p) { bar.show(p); };
      observer.on_wait = [&](const std::string& reason) {
        bar.clear();
        std::cerr << fmt::format("{} waits: {}\n", name, reason);
      };
    }
    try {
      qb::supervise({all.workspace, id, all.options}, control, observer, all.start);
      const qb::RunReport report = qb::Workspace::open(all.workspace, qb::Workspace::Absent::refuse)->load(id);
      bar.clear();
      on_finished(report);
    } catch (const qb::Cancelled&) {
      bar.clear();
      std::cerr << fmt::format("qbench: run {} was cancelled; {}\n", id, go_on);
      return cancelled;
    } catch (const qb::Interrupted& e) {
      bar.clear();
      std::cerr << fmt::format("qbench: run {} was interrupted: {}; {}\n", id, e.what(), go_on);
      if (code == ok) code = exit_code(e);
    } catch (const qb::Error& e) {
      bar.clear();
      if (all.alone) throw;
      std::cerr << fmt::format("qbench: {}: {}\n", name, e.what());
      if (code == ok) code = exit_code(e);
    }
  }
  return code;
}

}  // namespace cli
