#include "core/store/run_request.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/files.h"

namespace qb {
namespace {

namespace fs = std::filesystem;

constexpr std::pair<Wish, const char*> kWishes[] = {{Wish::run, "run"}, {Wish::hold, "hold"}, {Wish::stop_soon, "stop after its block"}, {Wish::stop, "stop"}};

fs::path request_path(const fs::path& run_folder) { return run_folder / "request.json"; }

}  // namespace

std::string to_text(Wish wish) {
  for (const auto& [value, text] : kWishes)
    if (value == wish) return text;
  throw InternalError("a wish without a name");
}

std::optional<RunRequest> load_request(const fs::path& run_folder) {
  const fs::path path = request_path(run_folder);
  std::error_code error;
  if (!fs::exists(path, error)) return std::nullopt;
  const auto json = nlohmann::json::parse(read_text(path, 1 << 16), nullptr, false);
  const auto refuse = [&](const std::string& what) { throw InputError(fmt::format("{}: {}", path.string(), what)); };
  if (!json.is_object()) refuse("not a JSON object");
  RunRequest request;
  const auto take = [&](const char* key, auto& value) {
    const auto found = json.find(key);
    if (found == json.end()) return;
    try {
      found->get_to(value);
    } catch (const nlohmann::json::exception&) {
      refuse(fmt::format("{}: found {}", key, found->dump()));
    }
  };
  std::string text = to_text(request.wish);
  take("wish", text);
  take("device", request.device);
  take("priority", request.priority);
  take("place", request.place);
  take("task", request.task);
  take("attempts", request.attempts);
  bool known = false;
  for (const auto& [value, name] : kWishes)
    if (text == name) {
      request.wish = value;
      known = true;
    }
  if (!known) refuse(fmt::format("wish: found \"{}\", expected run, hold, stop or stop after its block", text));
  return request;
}

std::optional<RunRequest> readable_request(const fs::path& run_folder) try {
  return load_request(run_folder);
} catch (const InputError&) {
  return std::nullopt;
}

void save_request(const fs::path& run_folder, const RunRequest& request) {
  write_atomically(request_path(run_folder), nlohmann::ordered_json{{"wish", to_text(request.wish)}, {"device", request.device}, {"priority", request.priority}, {"place", request.place}, {"task", request.task},
                                                                   {"attempts", request.attempts}}
                                                 .dump() + "\n");
}

void drop_request(const fs::path& run_folder) {
  std::error_code error;
  fs::remove(request_path(run_folder), error);
}

void wish(const fs::path& run_folder, Wish wish) {
  auto request = load_request(run_folder);
  if (!request || request->wish == wish) return;
  request->wish = wish;
  save_request(run_folder, *request);
}

const std::optional<RunRequest>& RequestWatch::look() {
  struct stat about {};
  const std::string path = request_path(folder_).string();
  if (::stat(path.c_str(), &about) != 0) {
    if (errno == ENOENT) request_.reset();
    seen_ = -1;
    return request_;
  }
  // Written by renaming: a new file has another number too, should the clock be coarse.
  const long long stamp = static_cast<long long>(about.st_mtim.tv_sec) * 1'000'000'000 + about.st_mtim.tv_nsec + static_cast<long long>(about.st_ino) * 7;
  if (stamp == seen_) return request_;
  try {
    request_ = load_request(folder_);
    seen_ = stamp;
  } catch (const Error&) {
  }
  return request_;
}

}  // namespace qb
