#pragma once
#include <filesystem>
#include <map>
#include <string>

namespace qb {

// state.json of a run folder: which blocks are durable, and of what. Written last after every block.
struct RunState {
  std::map<std::string, std::string> fingerprint;
  int blocks = 0;
};

// No file: an empty state. Throws InputError naming the file when it is damaged.
RunState load_state(const std::filesystem::path& folder);
void save_state(const std::filesystem::path& folder, const RunState& state);
std::filesystem::path block_path(const std::filesystem::path& folder, int block);
// What a stage that changes the whole model decided.
std::filesystem::path plan_path(const std::filesystem::path& folder, size_t stage, const std::string& method);
// Throws InputError naming the first value that differs ("model", found and expected).
void require_same_fingerprint(const std::filesystem::path& folder, const RunState& found, const std::map<std::string, std::string>& expected);

}  // namespace qb
