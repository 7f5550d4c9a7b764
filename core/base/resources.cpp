#include "core/base/resources.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdlib>
#include <vector>

#include "core/base/error.h"

namespace qb {

std::filesystem::path resource(const std::string& name) {
  std::vector<std::filesystem::path> folders;
  if (const char* set = std::getenv("QBENCH_RESOURCES")) folders.emplace_back(set);
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) folders.push_back(program.parent_path().parent_path() / "share" / "llm-qbench");
  folders.emplace_back(QBENCH_RESOURCES_SOURCE);
  folders.emplace_back("/usr/share/llm-qbench");
  std::vector<std::string> tried;
  for (const auto& folder : folders) {
    if (std::filesystem::exists(folder / name, error)) return folder / name;
    tried.push_back(folder.string());
  }
  throw InputError(fmt::format("resource \"{}\" is in none of {}; set QBENCH_RESOURCES", name, fmt::join(tried, ", ")));
}

}  // namespace qb
