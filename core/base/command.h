#pragma once
#include <string>
#include <vector>

namespace qb {

// A program that was run to its end, with what it said.
struct CommandResult {
  int code = 0;  // 127: there is no such program
  std::string out, err;
};

// Runs a program of the PATH without a shell; no input. Throws ResourceError when it cannot be started.
CommandResult run_command(const std::vector<std::string>& words);

}  // namespace qb
