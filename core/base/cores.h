#pragma once
#include <filesystem>

namespace qb {

// How many cores this process can keep busy: those it may run on, fewer where a container's quota pays for fewer; at least 1.
// `root`: the folder that holds proc and sys.
int usable_cores(const std::filesystem::path& root = "/");

}  // namespace qb
