#include "core/run/supervisor.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/process.h"
#include "core/base/spawn.h"
#include "core/engine/run_state.h"
#include "core/measure/report_json.h"
#include "core/store/run_events.h"
#include "core/store/run_lock.h"
#include "core/store/run_request.h"

namespace qb {
namespace {

namespace fs = std::filesystem;
using Kind = RunEvent::Kind;

fs::path folder_of(const WorkOrder& order) { return order.workspace / "runs" / order.run; }

int durable_blocks(const fs::path& folder) {
  try {
    return load_state(folder).blocks;
  } catch (const Error&) {
    return 0;  // resuming says what is wrong
  }
}

uint64_t said_so_far(const fs::path& folder) {
  std::error_code none;
  const uint64_t size = fs::file_size(folder / "worker.txt", none);
  return none ? 0 : size;
}

// The last line that a dead worker said.
std::string last_words(const fs::path& folder, uint64_t before) {
  try {
    std::string text = read_text(folder / "worker.txt");
    text.erase(0, before);
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return text.substr(text.rfind('\n') == std::string::npos ? 0 : text.rfind('\n') + 1);
  } catch (const Error&) {
    return {};
  }
}

bool is_finished(const fs::path& folder) {
  const fs::path path = folder / "report.json";
  try {
    return run_report_from_json(read_text(path), path.string()).status == RunStatus::finished;
  } catch (const InputError&) {
    return false;
  }
}

// Writes down how a run ended whose process could not. Whoever works on it by now knows better.
void mark(const fs::path& folder, RunStatus status, const std::string& reason, int blocks_before) try {
  const RunLock lock(folder);
  const fs::path path = folder / "report.json";
  RunReport report = run_report_from_json(read_text(path), path.string());
  if (report.status == RunStatus::running || report.status == RunStatus::paused || report.status == RunStatus::queued) {
    report.status = status;
    report.error = reason;
    write_atomically(path, to_json(report));
  }
  if (status == RunStatus::failed) return drop_request(folder);
  if (auto request = load_request(folder)) {
    request->attempts = durable_blocks(folder) > blocks_before ? 0 : request->attempts + 1;
    request->wish = Wish::run;
    save_request(folder, *request);
  }
} catch (const Error&) {
  // A disk that is full or away: readers tell by the lock that nobody works on it.
}

// Control as wishes in the run's folder.
class Messenger {
 public:
  Messenger(fs::path folder, const Control& control) : folder_(std::move(folder)), control_(control) {}

  void look() {
    const bool held = control_.gate && control_.gate->paused();
    Wish wanted = control_.stop.stop_requested() ? Wish::stop : control_.stop_soon.stop_requested() ? Wish::stop_soon : held ? Wish::hold : Wish::run;
    if (wanted == told_) return;
    try {
      wish(folder_, wanted);
      told_ = wanted;
    } catch (const Error&) {
      // Tried again the next time.
    }
  }

 private:
  fs::path folder_;
  const Control& control_;
  Wish told_ = Wish::run;
};

// Calls the observer; keeps the end of the session.
void tell(const std::vector<RunEvent>& events, const fs::path& folder, const Control& control, const RunObserver& observer, std::optional<RunEvent>& end) {
  const Progress* latest = nullptr;
  for (const RunEvent& event : events) {
    if (event.kind == Kind::begin) end.reset();
    if (event.kind == Kind::end) end = event;
    if (event.kind == Kind::progress) latest = &event.progress;
    if (event.kind == Kind::log && observer.on_log) observer.on_log(event.text);
    if (event.kind == Kind::waiting && observer.on_wait) observer.on_wait(event.text);
    if ((event.kind == Kind::paused || event.kind == Kind::resumed) && observer.on_hold) observer.on_hold(event.kind == Kind::paused);
    if (event.kind == Kind::estimate && observer.on_estimate) observer.on_estimate(event.estimate);
    if (event.kind == Kind::block && observer.on_block) try {
        const fs::path path = block_report_path(folder, event.block);
        observer.on_block(block_report_from_json(read_text(path), path.string()));
      } catch (const InputError&) {
        // It is being made again.
      }
  }
  if (latest) control.report(*latest);  // of several that came at once the last one counts
}

void conclude(const RunEvent& end) {
  if (end.status == RunStatus::finished) return;
  if (end.status == RunStatus::cancelled) throw Cancelled();
  if (end.status == RunStatus::interrupted) throw Interrupted(end.text);
  throw Error(end.error, end.text);
}

// Of a run that another process works on.
void follow(const fs::path& folder, const std::stop_token& leave, const Control& control, const RunObserver& observer) {
  RunEventReader reader(folder, RunEventReader::From::this_session);
  Messenger messenger(folder, control);
  std::optional<RunEvent> end;
  for (bool held = true;;) {
    if (leave.stop_requested()) throw LeftAlone();
    messenger.look();
    tell(reader.take(), folder, control, observer, end);
    if (end) return conclude(*end);
    if (!held) {
      const std::string reason = "its process ended before the run did";
      mark(folder, RunStatus::interrupted, reason, 0);
      throw Interrupted(reason);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    held = RunLock::held(folder);  // asked before the events are read once more: the end may be among them
  }
}

}  // namespace

namespace {

// Behind the program's name.
std::vector<std::string> work_arguments(const WorkOrder& order) {
  std::vector<std::string> arguments = {"work", "--workspace", order.workspace.string(), "--device", order.options.device};
  if (!order.run.empty()) arguments.insert(arguments.end(), {"--run", order.run});
  if (order.options.threads > 0) arguments.insert(arguments.end(), {"--threads", std::to_string(order.options.threads)});
  if (order.options.statistics_cache_bytes) arguments.insert(arguments.end(), {"--statistics-cache", fmt::format("{}", static_cast<double>(*order.options.statistics_cache_bytes) / 1e9)});
  return arguments;
}

}  // namespace

fs::path qbench_program() {
  if (const char* named = std::getenv("QBENCH_PROGRAM"); named && *named) return named;
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  const fs::path beside = self.parent_path() / "qbench";
  if (error || !fs::exists(beside)) throw ResourceError(fmt::format("{}: there is no such program; runs are carried out by it, and QBENCH_PROGRAM may name it", beside.string()));
  return beside;
}

WorkerStart detached_worker(fs::path qbench) {
  return [qbench = std::move(qbench)](const WorkOrder& order) { return spawn(qbench, work_arguments(order), folder_of(order) / "worker.txt", Apart::session, false); };
}

WorkerStart attached_worker() {
  return [](const WorkOrder& order) {
    std::vector<std::string> arguments = work_arguments(order);
    arguments.insert(arguments.end(), {"--attached", std::to_string(::getpid())});
    return spawn("/proc/self/exe", arguments, folder_of(order) / "worker.txt", Apart::session, false);
  };
}

void start_queue(const fs::path& workspace, const RunOptions& options, const fs::path& qbench) { spawn(qbench, work_arguments({workspace, {}, options}), workspace / "queue.txt", Apart::session, false); }

void supervise(const WorkOrder& order, const Control& control, const RunObserver& observer, const WorkerStart& start) {
  const fs::path folder = folder_of(order);
  // Who was killed a moment ago holds it until its memory is gone.
  for (int i = 0; i < 20 && RunLock::held(folder); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  if (RunLock::held(folder)) return follow(folder, order.options.leave, control, observer);
  RunRequest request = readable_request(folder).value_or(RunRequest{});
  request.wish = Wish::run;
  request.device = order.options.device;
  if (!is_finished(folder)) save_request(folder, request);
  const int blocks = durable_blocks(folder);
  const uint64_t said_before = said_so_far(folder);
  RunEventReader reader(folder, RunEventReader::From::next_session);
  Messenger messenger(folder, control);
  const pid_t worker = start(order);
  std::optional<RunEvent> end;
  for (;;) {
    if (order.options.leave.stop_requested()) throw LeftAlone();
    messenger.look();
    int status = 0;
    const pid_t ended = ::waitpid(worker, &status, WNOHANG);
    tell(reader.take(), folder, control, observer, end);
    if (ended == 0 || (ended < 0 && errno == EINTR)) {
      std::this_thread::sleep_for(std::chrono::milliseconds(25));
      continue;
    }
    if (end) return conclude(*end);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;  // nothing was left to do
    // Another process was faster: it has the run.
    // Who was killed a moment ago holds it until its memory is gone.
  for (int i = 0; i < 20 && RunLock::held(folder); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  if (RunLock::held(folder)) return follow(folder, order.options.leave, control, observer);
    const std::string said = last_words(folder, said_before);
    if (WIFEXITED(status) && !said.empty()) {  // it could say what is wrong, but not in the run's folder
      constexpr std::string_view program = "qbench: ";
      const std::string error = said.starts_with(program) ? said.substr(program.size()) : said;
      mark(folder, RunStatus::failed, error, blocks);
      const int code = WEXITSTATUS(status);
      throw Error(code == 3 ? ErrorKind::recipe : code == 4 ? ErrorKind::input : code == 5 ? ErrorKind::resource : ErrorKind::internal, error);
    }
    const std::string reason = fmt::format("its process {}{} {}{}", worker, WIFEXITED(status) ? "" : " was", death_text(status), said.empty() ? "" : ": " + said);
    mark(folder, RunStatus::interrupted, reason, blocks);
    throw Interrupted(reason);
  }
}

RunReport follow_run(Workspace& workspace, const std::string& id, const RunOptions& options, const Control& control, const RunObserver& observer) {
  follow(workspace.run_folder(id), options.leave, control, observer);
  return workspace.load(id);
}

RunReport carry_out_in_worker(Workspace& workspace, const std::string& id, const RunOptions& options, const Control& control, const RunObserver& observer, const WorkerStart& start) {
  workspace.load(id);  // says so when there is no such run
  supervise({workspace.folder(), id, options}, control, observer, start);
  return workspace.load(id);
}

}  // namespace qb
