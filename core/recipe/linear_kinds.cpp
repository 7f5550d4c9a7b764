#include "core/recipe/linear_kinds.h"

#include <algorithm>

namespace qb {

std::string kind_of_linear(const std::string& name) {
  std::string kind, part;
  for (size_t i = 0; i <= name.size(); ++i) {
    if (i < name.size() && name[i] != '.') {
      part += name[i];
      continue;
    }
    const bool number = !part.empty() && std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
    kind += (kind.empty() ? "" : ".") + (number ? "*" : part);
    part.clear();
  }
  return kind;
}

std::string pattern_text(const std::string& text) {
  std::string result;
  for (char c : text) {
    if (std::string("\\^$.|?+()[]{}").find(c) != std::string::npos) result += '\\';
    result += c == '*' ? std::string("[0-9]+") : std::string(1, c);
  }
  return result;
}

}  // namespace qb
