#include "core/base/host_memory.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>

namespace qb {
namespace {

namespace fs = std::filesystem;

int64_t meminfo(const fs::path& root, const std::string& field) {
  std::ifstream file(root / "proc/meminfo");
  for (std::string line; std::getline(file, line);)
    if (line.rfind(field, 0) == 0) return std::stoll(line.substr(field.size())) * 1024;
  return 0;
}

std::optional<int64_t> number(const fs::path& file) {
  std::ifstream in(file);
  int64_t value = 0;
  return in >> value ? std::optional(value) : std::nullopt;  // "max": no limit
}

// Of what a group has taken, the part that the system drops when somebody needs the room.
int64_t reclaimable(const fs::path& group) {
  std::ifstream in(group / "memory.stat");
  std::string name;
  for (int64_t value = 0; in >> name >> value;)
    if (name == "inactive_file") return value;
  return 0;
}

}  // namespace

HostMemory host_memory(const fs::path& root) {
  HostMemory memory{meminfo(root, "MemTotal:"), meminfo(root, "MemAvailable:")};
  std::ifstream groups(root / "proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // "0::/user.slice" or "4:memory:/docker/1a2b"
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (!controllers.empty() && controllers != "memory") continue;
    const bool unified = controllers.empty();
    for (fs::path group = fs::path(line.substr(second + 1)).relative_path();; group = group.parent_path()) {
      const fs::path place = root / "sys/fs/cgroup" / (unified ? "" : "memory") / group;
      const auto limit = number(place / (unified ? "memory.max" : "memory.limit_in_bytes"));
      const auto used = number(place / (unified ? "memory.current" : "memory.usage_in_bytes"));
      if (limit && *limit > 0 && (memory.total == 0 || *limit < memory.total)) memory.total = *limit;
      if (limit && used) memory.available = std::min(memory.available, std::max<int64_t>(0, *limit - *used + reclaimable(place)));
      if (group.empty()) break;
    }
  }
  return memory;
}

int64_t resident_bytes_of(int64_t process) {
  std::ifstream in(fmt::format("/proc/{}/statm", process));
  int64_t size = 0, resident = 0;
  return in >> size >> resident ? resident * ::sysconf(_SC_PAGESIZE) : 0;
}

}  // namespace qb
