#include "core/run/sensitivity_job.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <csignal>
#include <cstring>
#include <optional>
#include <thread>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/process.h"
#include "core/base/spawn.h"
#include "core/model/model_info.h"
#include "core/store/run_events.h"

namespace qb {
namespace fs = std::filesystem;
namespace {

constexpr const char* kFolder = "sensitivity";

// A recipe that says what is surveyed, and no more.
Recipe surveyed(const SensitivityWish& wish) {
  if (wish.recipe.model.empty()) throw InputError("sensitivity: the recipe names no model");
  if (!wish.recipe.calibration) throw InputError("sensitivity: the recipe has no calibration text to find sensitivities on");
  Recipe recipe;
  recipe.model = fs::absolute(wish.recipe.model).lexically_normal();
  recipe.dequantize = wish.recipe.dequantize;
  recipe.calibration = wish.recipe.calibration;
  recipe.calibration->corpus.path = fs::absolute(recipe.calibration->corpus.path).lexically_normal();
  recipe.scheme.weights = QuantSpec{};
  recipe.pipeline = {{"rtn", {}}};
  recipe.evaluate_float = false;
  return recipe;
}

std::string plain(std::string name) {
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '_' && c != '.') c = '-';
  return name.empty() || name.front() == '.' ? "model" : name;
}

[[noreturn]] void throw_as(ErrorKind kind, const std::string& what) {
  switch (kind) {
    case ErrorKind::cancelled: throw Cancelled();
    case ErrorKind::input: throw InputError(what);
    case ErrorKind::resource: throw ResourceError(what);
    default: throw Error(kind, what);
  }
}

std::string last_line(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return {};
  std::string text = read_text(path);
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  return text.substr(text.rfind('\n') == std::string::npos ? 0 : text.rfind('\n') + 1);
}

}  // namespace

fs::path sensitivity_file(const fs::path& workspace, const SensitivityWish& wish) {
  const Recipe recipe = surveyed(wish);
  Recipe text = recipe;
  text.model.clear();
  Hasher hasher;
  hasher.update(model_hash(recipe.model));
  hasher.update(to_yaml(text));
  hasher.update(fmt::format("{} / {} / {} / {}", fmt::join(wish.candidates, ","), fmt::join(wish.rounding, ","), wish.measured, wish.device));
  std::string name = recipe.model.filename().empty() ? recipe.model.parent_path().filename().string() : recipe.model.filename().string();
  return workspace / kFolder / fmt::format("{}-{}.json", plain(name), hasher.hex().substr(0, 8));
}

fs::path run_sensitivity(const fs::path& workspace, const SensitivityWish& wish, const Control& control, const fs::path& qbench) {
  control.checkpoint();
  const fs::path file = sensitivity_file(workspace, wish);
  const fs::path folder = fs::path(file).replace_extension();  // of the recipe, events and what the process says
  std::error_code failed;
  fs::create_directories(folder, failed);
  if (failed) throw ResourceError(fmt::format("{}: cannot make it: {}", folder.string(), failed.message()));
  write_atomically(folder / "recipe.yaml", to_yaml(surveyed(wish)));

  std::vector<std::string> arguments = {"sensitivity", (folder / "recipe.yaml").string(), "--folder", (workspace / kFolder).string(), "--output", file.string(),
                                        "--device", wish.device, "--measured", std::to_string(wish.measured), "--events", folder.string(), "--attached", std::to_string(::getpid())};
  if (!wish.candidates.empty()) arguments.insert(arguments.end(), {"--candidates", fmt::format("{}", fmt::join(wish.candidates, ","))});
  if (!wish.rounding.empty()) arguments.insert(arguments.end(), {"--rounding", fmt::format("{}", fmt::join(wish.rounding, ","))});
  if (wish.threads > 0) arguments.insert(arguments.end(), {"--threads", std::to_string(wish.threads)});

  RunEventReader events(folder, RunEventReader::From::next_session);
  const pid_t process = spawn(qbench, arguments, folder / "said.txt", Apart::group, true);
  std::optional<RunEvent> end;
  bool held = false, asked = false;
  int status = 0;
  for (bool over = false; !over;) {
    over = ::waitpid(process, &status, WNOHANG) == process;  // asked before the events are read: the end may be among them
    for (const RunEvent& event : events.take()) {
      if (event.kind == RunEvent::Kind::progress) control.report(event.progress);
      if (event.kind == RunEvent::Kind::end) end = event;
    }
    if (over) break;
    if (const bool pause = control.gate && control.gate->paused() && !control.stop.stop_requested(); pause != held) {
      ::kill(process, pause ? SIGSTOP : SIGCONT);
      held = pause;
    }
    if (control.stop.stop_requested() && !asked) {
      ::kill(process, SIGTERM);
      asked = true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  if (asked) throw Cancelled();
  if (end && end->status == RunStatus::failed) throw_as(end->error, end->text);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    const std::string said = last_line(folder / "said.txt");
    throw ResourceError(fmt::format("the survey's process {}{}{}; started again, it goes on after its last block", death_text(status), said.empty() ? "" : ": ", said));
  }
  return file;
}

std::vector<StoredSensitivity> stored_sensitivities(const fs::path& workspace, const std::string& model_hash) {
  std::vector<std::pair<fs::file_time_type, StoredSensitivity>> found;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(workspace / kFolder, none)) {
    if (entry.path().extension() != ".json" || !entry.is_regular_file(none)) continue;
    StoredSensitivity stored{entry.path(), nullptr, {}};
    try {
      auto survey = std::make_shared<const Sensitivity>(sensitivity_from_json(read_text(entry.path()), entry.path().string()));
      if (survey->model_hash != model_hash) continue;
      stored.survey = std::move(survey);
    } catch (const Error& error) {
      stored.problem = error.what();
    }
    found.emplace_back(fs::last_write_time(entry.path(), none), std::move(stored));
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<StoredSensitivity> surveys;
  for (auto& [time, stored] : found) surveys.push_back(std::move(stored));
  return surveys;
}

}  // namespace qb
