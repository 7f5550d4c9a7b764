#pragma once
#include "cli.h"

namespace cli {

void add_sensitivity(CLI::App& app, const Options& options, Action& action);
void add_allocate(CLI::App& app, const Options& options, Action& action);

}  // namespace cli
