#include "work.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstring>
#include <iostream>
#include <optional>
#include <thread>

#include "cli.h"
#include "core/base/error.h"
#include "core/base/process.h"
#include "core/run/run_queue.h"

namespace cli {
namespace {

void die_with(pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(failure);  // it died in between
}

pid_t fork_process() {
  std::cout.flush();
  std::cerr.flush();
  const pid_t parent = ::getpid(), child = ::fork();
  if (child < 0) throw qb::ResourceError(fmt::format("cannot start a process: {}", std::strerror(errno)));
  if (child == 0) die_with(parent);
  return child;
}

struct Stops {
  std::stop_source now, soon;
};

// A worker is told to make room: by a cluster before its time is over, by a machine that goes down, by a terminal that is closed.
// Ctrl-C is for whoever supervises it.
void watch_worker_signals(Stops& stops) {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1}) sigaddset(&set, signal);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  std::thread([set, &stops] {
    int signal = 0;
    std::optional<std::chrono::steady_clock::time_point> first;
    while (sigwait(&set, &signal) == 0) {
      if (signal == SIGINT) continue;
      const auto now = std::chrono::steady_clock::now();
      if (!first) first = now;
      stops.soon.request_stop();
      // Several that come together are one wish: a cluster tells the script and the worker.
      if (now - *first > std::chrono::seconds(2)) stops.now.request_stop();
    }
  }).detach();
}

constexpr int made_room = 75;  // EX_TEMPFAIL: it goes on later

// One run, in this process. wait: for whoever has it now.
int work(const qb::WorkOrder& order, bool wait = false) {
  static Stops stops;  // the thread that waits for signals lives as long as the process
  watch_worker_signals(stops);
  Options options;
  options.threads = order.options.threads;
  prepare_compute(options);
  const auto workspace = qb::Workspace::open(order.workspace, qb::Workspace::Absent::refuse);
  const qb::Control control{stops.now.get_token(), nullptr, {}, stops.soon.get_token()};
  for (bool told = false; wait && workspace->owner(order.run) && !stops.soon.stop_requested(); told = true) {
    if (!told) std::cerr << fmt::format("qbench: {} is carried out by {}; waiting\n", order.run, qb::owner_text(*workspace->owner(order.run)));
    std::this_thread::sleep_for(std::chrono::seconds(1));
  }
  try {
    qb::carry_out(*workspace, order.run, order.options, control);
  } catch (const qb::Cancelled&) {
    if (workspace->load(order.run).status == qb::RunStatus::interrupted) return made_room;
    throw;
  }
  return ok;
}

struct Arguments {
  std::string workspace = "qbench-workspace", run, device = "cpu";
  int attached = 0;  // process that starts it
  bool wait = false;
  std::optional<double> statistics_cache;  // GB

  qb::RunOptions run_options(const Options& options) const {
    qb::RunOptions chosen{device, {}};
    chosen.threads = options.threads;
    if (statistics_cache) chosen.statistics_cache_bytes = std::llround(*statistics_cache * 1e9);
    return chosen;
  }
};

// The queue of a workspace, one run after the other, each in a process of its own.
int work_through(const Arguments& arguments, const Options& options) {
  watch_interrupts();
  const qb::WorkerStart start = qb::detached_worker(qb::qbench_program());
  const qb::Control control{{}, nullptr, {}, interrupt_token()};  // told to end: the run at work ends after its block, and waits for its turn again
  int code = ok, done = 0;
  while (!control.stop_soon.stop_requested()) {
    const auto next = qb::next_waiting(arguments.workspace, arguments.device);
    if (!next) break;
    const qb::WorkOrder order{arguments.workspace, *next, arguments.run_options(options)};
    try {
      qb::supervise(order, control, {}, start);
      ++done;
      if (!options.json) std::cout << fmt::format("{}: finished\n", *next) << std::flush;
    } catch (const qb::Cancelled&) {
      if (!options.json) std::cout << fmt::format("{}: cancelled\n", *next) << std::flush;
    } catch (const qb::Interrupted& e) {
      std::cerr << fmt::format("qbench: {}: interrupted: {}\n", *next, e.what());
      if (code == ok) code = exit_code(e);
    } catch (const qb::Error& e) {
      std::cerr << fmt::format("qbench: {}: {}\n", *next, e.what());
      if (code == ok) code = exit_code(e);
      qb::drop_request(std::filesystem::path(arguments.workspace) / "runs" / *next);  // what could not even be started would come again and again
    }
  }
  if (options.json) std::cout << nlohmann::json{{"finished", done}}.dump() << '\n';
  return control.stop_soon.stop_requested() ? static_cast<int>(cancelled) : code;
}

}  // namespace

int in_child(const std::function<int()>& action) {
  const pid_t child = fork_process();
  if (child == 0) {
    const int code = guarded([&] {
      watch_interrupts();
      return action();
    });
    std::cout.flush();
    std::cerr.flush();
    ::_exit(code);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status)) throw qb::ResourceError(fmt::format("the check of the recipes was {}", qb::death_text(status)));
  return WEXITSTATUS(status);
}

int fork_worker(const qb::WorkOrder& order) {
  const pid_t child = fork_process();
  if (child != 0) return child;
  const std::string said = (order.workspace / "runs" / order.run / "worker.txt").string();
  if (const int fd = ::open(said.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644); fd >= 0) ::dup2(fd, STDERR_FILENO);
  const int code = guarded([&] { return work(order); });
  std::cerr.flush();
  ::_exit(code);
}

void add_work(CLI::App& app, const Options& options, Action& action) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("work", "Carry out one run of a workspace in this process, or those that wait in its queue");
  command->add_option("--workspace,-w", arguments->workspace, "Folder that keeps the runs")->capture_default_str();
  command->add_option("--run", arguments->run, "Id of the run; without it, all that wait for the device are carried out, each in a process of its own");
  command->add_option("--device,-d", arguments->device, "cpu, cuda:0 …")->envname("QBENCH_DEVICE")->capture_default_str();
  command->add_flag("--wait", arguments->wait, "Wait while another process has the run");
  command->add_option("--attached", arguments->attached, "Process without which the run ends")->group("");
  command->add_option("--statistics-cache", arguments->statistics_cache, "GB of the workspace for statistics that later recipes can use; 0: none")->check(CLI::Range(0.0, 1e9));
  command->callback([arguments, &options, &action] {
    action = [arguments, &options] {
      if (arguments->run.empty()) return work_through(*arguments, options);
      if (arguments->attached > 0) die_with(arguments->attached);
      return work({arguments->workspace, arguments->run, arguments->run_options(options)}, arguments->wait);
    };
  });
}

}  // namespace cli
