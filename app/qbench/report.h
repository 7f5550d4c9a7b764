#pragma once
#include "cli.h"

namespace cli {

void add_report(CLI::App& app, const Options& options, Action& action);

}  // namespace cli
