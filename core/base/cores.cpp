#include "core/base/cores.h"

#include <algorithm>
#include <fstream>
#include <string>
#include <thread>

#ifdef __linux__
#include <sched.h>

#include <vector>
#endif

namespace qb {
namespace {

namespace fs = std::filesystem;

int allowed_cores() {
#ifdef __linux__
  // The kernel refuses a mask shorter than its own, which may be longer than cpu_set_t.
  for (size_t masks = 1; masks <= 64; masks *= 2) {
    std::vector<cpu_set_t> set(masks);
    const size_t bytes = masks * sizeof(cpu_set_t);
    if (::sched_getaffinity(0, bytes, set.data()) == 0) return std::max(1, CPU_COUNT_S(bytes, set.data()));
  }
#endif
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

double read_number(const fs::path& file, double otherwise) {
  std::ifstream in(file);
  double value = 0;
  return in >> value ? value : otherwise;
}

// Cores' worth of time that the quota of one control group gives; `otherwise` where it sets none.
double quota(const fs::path& group, double otherwise) {
  if (std::ifstream in(group / "cpu.max"); in) {  // version 2: "200000 100000", or "max 100000"
    double time = 0, period = 0;
    return in >> time >> period && time > 0 && period > 0 ? time / period : otherwise;
  }
  const double time = read_number(group / "cpu.cfs_quota_us", -1), period = read_number(group / "cpu.cfs_period_us", 0);
  return time > 0 && period > 0 ? time / period : otherwise;
}

// The smallest quota of this process's group and those above it.
double quota_of_groups(const fs::path& root, double most) {
  std::ifstream groups(root / "proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // "0::/user.slice" or "4:cpu,cpuacct:/docker/1a2b"
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    if (controllers != ",," && controllers.find(",cpu,") == std::string::npos) continue;
    const fs::path mount = root / "sys/fs/cgroup" / (controllers == ",," ? "" : controllers.substr(1, controllers.size() - 2));
    fs::path group = fs::path(line.substr(second + 1)).relative_path();
    for (;; group = group.parent_path()) {
      most = std::min(most, quota(mount / group, most));
      if (group.empty()) break;
    }
  }
  return most;
}

}  // namespace

int usable_cores(const fs::path& root) {
  const int allowed = allowed_cores();
  // Rounded down: a thread more than the quota pays for makes all of them wait at the end of every period.
  return std::max(1, static_cast<int>(quota_of_groups(root, allowed)));
}

}  // namespace qb
