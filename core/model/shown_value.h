#pragma once
#include <nlohmann/json.hpp>
#include <string>

namespace qb {

// A value that was found, short enough for one line.
inline std::string shown(const nlohmann::json& value) {
  std::string text = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (text.size() > 60) text.replace(57, std::string::npos, "...");
  return text;
}

}  // namespace qb
