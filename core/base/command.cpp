#include "core/base/command.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "core/base/error.h"

extern char** environ;

namespace qb {

CommandResult run_command(const std::vector<std::string>& words) {
  std::array<int, 2> out{}, err{};
  if (::pipe2(out.data(), O_CLOEXEC) != 0) throw ResourceError(fmt::format("{}: cannot start it: {}", words.front(), std::strerror(errno)));
  if (::pipe2(err.data(), O_CLOEXEC) != 0) {
    const std::string reason = std::strerror(errno);
    for (const int fd : out) ::close(fd);
    throw ResourceError(fmt::format("{}: cannot start it: {}", words.front(), reason));
  }
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawnattr_t how;
  sigset_t none;
  ::sigemptyset(&none);
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawnattr_init(&how);
  ::posix_spawnattr_setsigmask(&how, &none);
  ::posix_spawnattr_setflags(&how, POSIX_SPAWN_SETSIGMASK);
  ::posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&files, out[1], 1);
  ::posix_spawn_file_actions_adddup2(&files, err[1], 2);
  pid_t process = 0;
  const int error = ::posix_spawnp(&process, arguments[0], &files, &how, arguments.data(), environ);
  ::posix_spawn_file_actions_destroy(&files);
  ::posix_spawnattr_destroy(&how);
  ::close(out[1]);
  ::close(err[1]);
  CommandResult result;
  if (error == 0) {
    std::array<pollfd, 2> ends{{{out[0], POLLIN, 0}, {err[0], POLLIN, 0}}};
    for (int open = 2; open > 0;) {
      if (::poll(ends.data(), ends.size(), -1) < 0 && errno != EINTR) break;
      for (size_t i = 0; i < ends.size(); ++i) {
        if (ends[i].fd < 0 || ends[i].revents == 0) continue;
        char buffer[1 << 14];
        const ssize_t n = ::read(ends[i].fd, buffer, sizeof buffer);
        if (n > 0) (i == 0 ? result.out : result.err).append(buffer, static_cast<size_t>(n));
        if (n > 0 || (n < 0 && errno == EINTR)) continue;
        ends[i].fd = -1;  // poll() passes it over
        --open;
      }
    }
    int status = 0;
    while (::waitpid(process, &status, 0) < 0 && errno == EINTR) {
    }
    result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  ::close(out[0]);
  ::close(err[0]);
  if (error == ENOENT) return {127, "", fmt::format("there is no program \"{}\"", words.front())};
  if (error != 0) throw ResourceError(fmt::format("{}: cannot start it: {}", words.front(), std::strerror(error)));
  return result;
}

}  // namespace qb
