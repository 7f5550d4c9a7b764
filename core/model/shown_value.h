#pragma once
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

namespace qb {

// A value that was found, short enough for one line.
inline std::string shown(const nlohmann::json& value) {
  // Python's words for numbers that JSON has none for.
  if (value.is_number_float() && !std::isfinite(value.get<double>())) return std::isnan(value.get<double>()) ? "NaN" : value.get<double>() < 0 ? "-Infinity" : "Infinity";
  std::string text = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (text.size() > 60) text.replace(57, std::string::npos, "...");
  return text;
}

}  // namespace qb
