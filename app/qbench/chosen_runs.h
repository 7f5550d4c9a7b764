#pragma once
#include <string>
#include <vector>

#include "core/store/workspace.h"

namespace cli {

// Finished runs that meet all conditions and have all words, as qbench list selects them; newest first.
std::vector<qb::RunReport> finished_runs(const qb::Workspace& workspace, const std::vector<std::string>& where, const std::vector<std::string>& grep);

}  // namespace cli
