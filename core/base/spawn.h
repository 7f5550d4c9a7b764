#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace qb {

// With whom a program ends: a session of its own outlives us and our terminal; a group of its own is only out of reach of a terminal's Ctrl-C.
enum class Apart { session, group };

// Starts a program with nothing of ours but the environment; what it says on standard error goes to a file, behind what is there or (anew) in its place.
// Returns its process. Throws ResourceError naming the program.
int spawn(const std::filesystem::path& program, const std::vector<std::string>& arguments, const std::filesystem::path& said, Apart apart, bool anew);

}  // namespace qb
