#pragma once
#include <cstdint>
#include <filesystem>

namespace qb {

// Main memory in bytes that this process may use: the machine's, or less where a container's limit says so; and how much of that can
// be had now without swapping. 0: not known. `root`: the folder that holds proc and sys.
struct HostMemory {
  int64_t total = 0, available = 0;
};
HostMemory host_memory(const std::filesystem::path& root = "/");

// Resident memory of another process in bytes; 0 where there is none.
int64_t resident_bytes_of(int64_t process);

}  // namespace qb
