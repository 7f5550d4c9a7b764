#include "core/store/run_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "core/base/error.h"

namespace qb {
namespace {

// Start of this process in clock ticks since boot (field 22 of /proc/self/stat): process numbers are used again.
std::string start_time() {
  std::ifstream stat("/proc/self/stat");
  std::string text;
  std::getline(stat, text);
  // Fields count from behind the command's closing parenthesis, since a command may hold spaces.
  const size_t close = text.rfind(')');
  if (close == std::string::npos) return "0";
  size_t at = close + 1;
  for (int field = 3; field < 22 && at != std::string::npos; ++field) at = text.find(' ', at + 1);
  return at == std::string::npos ? "0" : text.substr(at + 1, text.find(' ', at + 1) - at - 1);
}

// A lock of the open file description: two openings in one process exclude each other too.
struct flock whole_file() {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
}

std::string host() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "";
}

// Of the file's text "PID START HOST".
RunOwner read_owner(int fd) {
  char text[512] = {};
  const ssize_t n = ::pread(fd, text, sizeof text - 1, 0);
  std::istringstream words(std::string(text, n > 0 ? static_cast<size_t>(n) : 0));
  RunOwner owner;
  std::string start;
  words >> owner.process >> start >> owner.host;
  return owner;
}

std::filesystem::path owner_path(const std::filesystem::path& run_folder) { return run_folder / "owner"; }

}  // namespace

RunLock::RunLock(const std::filesystem::path& run_folder) {
  const auto path = owner_path(run_folder);
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd_ < 0) throw ResourceError(fmt::format("{}: cannot open for writing: {}", path.string(), std::strerror(errno)));
  struct flock lock = whole_file();
  if (::fcntl(fd_, F_OFD_SETLK, &lock) != 0) {
    const int error = errno;
    const RunOwner owner = read_owner(fd_);
    ::close(fd_);
    if (error != EAGAIN && error != EACCES) throw ResourceError(fmt::format("{}: cannot lock: {}", path.string(), std::strerror(error)));
    const std::string elsewhere = owner.host.empty() || owner.host == host() ? "" : " on " + owner.host;
    throw InputError(fmt::format("{}: this run is already being carried out by process {}{}", run_folder.string(), owner.process, elsewhere));
  }
  const std::string text = fmt::format("{} {} {}\n", ::getpid(), start_time(), host());
  if (::ftruncate(fd_, 0) != 0 || ::pwrite(fd_, text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) {
    const std::string reason = std::strerror(errno);
    ::close(fd_);
    throw ResourceError(fmt::format("{}: cannot write: {}", path.string(), reason));
  }
}

RunLock::~RunLock() {
  // The file stays: removing it would let two processes lock two files of one name.
  ::close(fd_);
}

bool RunLock::held(const std::filesystem::path& run_folder) { return owner(run_folder).has_value(); }

std::optional<RunOwner> RunLock::owner(const std::filesystem::path& run_folder) {
  const int fd = ::open(owner_path(run_folder).c_str(), O_RDONLY | O_CLOEXEC);  // asking needs no right to write
  if (fd < 0) return std::nullopt;
  struct flock lock = whole_file();
  std::optional<RunOwner> found;
  if (::fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK) found = read_owner(fd);
  ::close(fd);
  return found;
}

}  // namespace qb
