#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>

namespace qb {

// A JSON file beside a model. Throws InputError naming it.
nlohmann::json read_json(const std::filesystem::path& path);

}  // namespace qb
