#include "core/engine/run_state.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/files.h"

namespace qb {
namespace {

std::filesystem::path state_path(const std::filesystem::path& folder) { return folder / "state.json"; }

}  // namespace

RunState load_state(const std::filesystem::path& folder) {
  const auto path = state_path(folder);
  if (!std::filesystem::exists(path)) return {};
  try {
    const auto json = nlohmann::json::parse(read_text(path));
    RunState state;
    state.fingerprint = json.at("fingerprint").get<std::map<std::string, std::string>>();
    state.blocks = json.at("blocks").get<int>();
    if (state.blocks < 0) throw InputError(fmt::format("{}: blocks is {}, expected 0 or more", path.string(), state.blocks));
    return state;
  } catch (const nlohmann::json::exception& e) {
    throw InputError(fmt::format("{}: damaged: {}", path.string(), e.what()));
  }
}

void save_state(const std::filesystem::path& folder, const RunState& state) {
  write_atomically(state_path(folder), nlohmann::json{{"format", 1}, {"fingerprint", state.fingerprint}, {"blocks", state.blocks}}.dump(2));
}

std::filesystem::path block_path(const std::filesystem::path& folder, int block) {
  return folder / "blocks" / fmt::format("block-{:04}.safetensors", block);
}

std::filesystem::path plan_path(const std::filesystem::path& folder, size_t stage, const std::string& method) {
  return folder / fmt::format("plan-{}-{}.txt", stage, method);
}

void require_same_fingerprint(const std::filesystem::path& folder, const RunState& found, const std::map<std::string, std::string>& expected) {
  if (found.blocks == 0 && found.fingerprint.empty()) return;
  for (const auto& [name, value] : expected) {
    const auto it = found.fingerprint.find(name);
    const std::string old = it == found.fingerprint.end() ? "nothing" : it->second;
    if (old != value)
      throw InputError(fmt::format("{}: cannot resume: its blocks were made with another {} ({}, now {}); start a new run", folder.string(), name, old, value));
  }
}

}  // namespace qb
