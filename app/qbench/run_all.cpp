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
    const std::string id = turn->resume.empty() ? all.workspace.create_run(turn->recipe, turn->sweep) : turn->resume;
    const std::string name = all.workspace.load(id).name;
    ProgressBar bar(name);
    qb::Control control{interrupt_token(), nullptr, {}};
    if (!all.quiet) control.on_progress = [&](const qb::Progress& p) { bar.show(p); };
    try {
      const qb::RunReport report = qb::carry_out(all.workspace, id, all.options, control);
      bar.clear();
      on_finished(report);
    } catch (const qb::Cancelled&) {
      bar.clear();
      std::cerr << fmt::format("qbench: run {} was cancelled; go on with: qbench run --workspace {} --resume {}\n", id, all.workspace_path, id);
      return cancelled;
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
