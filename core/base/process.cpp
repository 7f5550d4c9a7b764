#include "core/base/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "core/base/files.h"

namespace qb {
namespace {

struct ProcessState {
  std::string start;  // empty: there is no such process, or nothing says so
  bool dead = false;  // it waits for its parent to ask how it ended
};

// Fields 3 and 22 of /proc/PID/stat.
ProcessState state_of(int64_t process) {
  std::ifstream stat(fmt::format("/proc/{}/stat", process));
  std::string text;
  std::getline(stat, text);
  // Fields count from behind the command's closing parenthesis, since a command may hold spaces.
  const size_t close = text.rfind(')');
  if (close == std::string::npos) return {};
  size_t at = close + 1;
  const char state = at + 1 < text.size() ? text[at + 1] : ' ';
  for (int field = 3; field < 22 && at != std::string::npos; ++field) at = text.find(' ', at + 1);
  return {at == std::string::npos ? std::string() : text.substr(at + 1, text.find(' ', at + 1) - at - 1), state == 'Z' || state == 'X'};
}

std::string find_space() {
  std::string what = host_name();
  char text[256] = {};
  if (const int fd = ::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC); fd >= 0) {
    const ssize_t n = ::read(fd, text, sizeof text);
    ::close(fd);
    if (n > 0) what.append(text, static_cast<size_t>(n));
  }
  if (const ssize_t n = ::readlink("/proc/self/ns/pid", text, sizeof text); n > 0) what.append(text, static_cast<size_t>(n));
  Hasher hasher;
  hasher.update(what);
  return hasher.hex().substr(0, 8);
}

}  // namespace

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "";
}

const std::string& process_space() {
  static const std::string space = find_space();
  return space;
}

ProcessId this_process() { return {::getpid(), state_of(::getpid()).start, process_space()}; }

bool certainly_gone(const ProcessId& process) {
  if (process.space != process_space() || process.number <= 0) return false;
  if (::kill(static_cast<pid_t>(process.number), 0) != 0) return errno == ESRCH;
  const ProcessState now = state_of(process.number);
  return now.dead || (!process.start.empty() && !now.start.empty() && now.start != process.start);
}

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec); };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

std::string death_text(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    const int signal = WTERMSIG(wait_status);
    const char* name = ::sigabbrev_np(signal);
    return fmt::format("killed by SIG{}{}", name ? name : std::to_string(signal), signal == SIGKILL ? ", by hand or by the system because memory ran out" : "");
  }
  return fmt::format("ended with code {}", WEXITSTATUS(wait_status));
}

}  // namespace qb
