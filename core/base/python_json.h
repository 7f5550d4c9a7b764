#pragma once
#include <nlohmann/json.hpp>
#include <string>

namespace qb {

// JSON as Python's json module reads and writes it: Infinity, -Infinity and NaN are numbers. Throws nlohmann's parse_error.
nlohmann::json parse_python_json(const std::string& text);
nlohmann::ordered_json parse_ordered_python_json(const std::string& text);
std::string dump_python_json(const nlohmann::ordered_json& json, int indent);

}  // namespace qb
