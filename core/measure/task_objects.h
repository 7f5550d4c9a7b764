#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace qb {

// An object of a file and where it stands: "piqa.jsonl:12", "piqa.json: item 3".
struct PlacedObject {
  nlohmann::ordered_json value;
  std::string where;
};

// One a line (blank lines are passed over), or those of the array that a file holds. Throws InputError.
std::vector<PlacedObject> read_objects(const std::filesystem::path& path);

int64_t characters_of(const std::string& text);  // Unicode code points

}  // namespace qb
