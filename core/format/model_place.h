#pragma once
#include <filesystem>

namespace qb {

// Whether a file begins as GGUF does; its name may end in anything. Throws InputError where it cannot be opened.
bool is_gguf(const std::filesystem::path& file);

// The Hugging Face folder for which a part of it (config.json, weights, an index of shards) was given; empty for any other file.
std::filesystem::path folder_of_part(const std::filesystem::path& file);

}  // namespace qb
