#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace qb {

std::string host_name();

// Stands for the host, its boot and its numbering of processes (containers have their own), in 8 hex digits: a process's number
// means something to those of its own space alone.
const std::string& process_space();

// A process that is not taken for another one which has its number later.
struct ProcessId {
  int64_t number = 0;
  std::string start;  // in clock ticks since boot
  std::string space;
  bool operator==(const ProcessId&) const = default;
};
ProcessId this_process();

// There is no such process any more. Of other spaces that cannot be known: false.
bool certainly_gone(const ProcessId& process);

// Seconds of processor time that this process has taken, in all its threads.
double cpu_seconds();

// "killed (SIGKILL)", "ended with code 3": of a status of waitpid().
std::string death_text(int wait_status);

}  // namespace qb
