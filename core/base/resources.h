#pragma once
#include <filesystem>
#include <string>

namespace qb {

// A file or folder of resources/ ("presets", "demo"): from $QBENCH_RESOURCES, the installed share/llm-qbench beside the
// program, or the source tree it was built from. Throws InputError naming the places looked at.
std::filesystem::path resource(const std::string& name);

}  // namespace qb
