#include "core/store/evaluation_cache.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <system_error>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/measure/report_json.h"

namespace qb {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

fs::path path_of(const fs::path& workspace, const std::string& key) {
  Hasher hasher;
  hasher.update(key);
  return workspace / "cache" / "evaluations" / (hasher.hex() + ".json");
}

}  // namespace

fs::path reference_states_path(const fs::path& workspace) { return workspace / "cache" / "references"; }

std::optional<EvaluationResult> kept_evaluation(const fs::path& workspace, const std::string& key) {
  const fs::path path = path_of(workspace, key);
  std::error_code error;
  if (!fs::exists(path, error)) return std::nullopt;
  try {
    const Json json = Json::parse(read_text(path));
    if (json.at("key").get<std::string>() != key) return std::nullopt;
    return evaluation_from_json(json.at("evaluation").dump(), path.string());
  } catch (const Json::exception&) {
    return std::nullopt;
  } catch (const Error&) {
    return std::nullopt;
  }
}

namespace {

void make_folder_of(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  if (error) throw ResourceError(fmt::format("{}: {}", path.parent_path().string(), error.message()));
}

}  // namespace

fs::path evaluation_lease(const fs::path& workspace, const std::string& key) {
  const fs::path path = path_of(workspace, key).replace_extension(".lease");
  make_folder_of(path);
  return path;
}

void keep_evaluation(const fs::path& workspace, const std::string& key, const EvaluationResult& result) {
  const fs::path path = path_of(workspace, key);
  make_folder_of(path);
  Json json = {{"key", key}};
  json["evaluation"] = Json::parse(to_json(result));
  write_atomically(path, json.dump(-1, ' ', false, Json::error_handler_t::replace));
}

}  // namespace qb
