#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>

namespace qb {

// Whether a file is a GGUF model, by its first bytes: blob stores keep them without the ending.
bool is_gguf(const std::filesystem::path& path);
// A JSON file beside a model. Throws InputError naming it.
nlohmann::json read_json(const std::filesystem::path& path);

}  // namespace qb
