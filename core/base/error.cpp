#include "core/base/error.h"

#include <fmt/format.h>

namespace qb {

static std::string located(const std::string& file, int line, int column, const std::string& key, const std::string& what) {
  std::string place = file.empty() ? "recipe" : file;
  if (line > 0) place += fmt::format(":{}:{}", line, column);
  return key.empty() ? fmt::format("{}: {}", place, what) : fmt::format("{}: {}: {}", place, key, what);
}

RecipeError::RecipeError(std::string file, int line, int column, std::string key, const std::string& what)
    : Error(ErrorKind::recipe, located(file, line, column, key, what)),
      file_(std::move(file)), key_(std::move(key)), detail_(what), line_(line), column_(column) {}

}  // namespace qb
