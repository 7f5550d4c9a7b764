#include "core/base/lease.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sstream>
#include <thread>

#include "core/base/atomic_writer.h"
#include "core/base/error.h"
#include "core/base/file_lock.h"
#include "core/base/process.h"

namespace qb {
namespace {

namespace fs = std::filesystem;

struct Written {
  ProcessId process;
  std::string host;
  LeaseOwner owner() const { return {process.number, host}; }
};

// No text: it was given back, or never taken.
std::optional<Written> read_lease(int fd) {
  char text[512] = {};
  const ssize_t n = ::pread(fd, text, sizeof text - 1, 0);
  if (n <= 0) return std::nullopt;
  std::istringstream words(std::string(text, static_cast<size_t>(n)));
  Written lease;
  words >> lease.process.number >> lease.process.start >> lease.host >> lease.process.space;
  return lease;
}

timespec written(int fd) {
  struct stat about {};
  ::fstat(fd, &about);
  return about.st_mtim;
}

// By the file system's clock: those of two machines differ.
double seconds_ago(int fd, const fs::path& folder) {
  const fs::path probe = temporary_name(folder / "time");
  const int now = ::open(probe.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  timespec present{};
  if (now >= 0) {
    present = written(now);
    ::close(now);
    ::unlink(probe.c_str());
  } else {
    ::clock_gettime(CLOCK_REALTIME, &present);  // a folder for reading only
  }
  const timespec then = written(fd);
  return static_cast<double>(present.tv_sec - then.tv_sec) + 1e-9 * static_cast<double>(present.tv_nsec - then.tv_nsec);
}

// Nobody holds the lock: what the lease's text says of who wrote it.
bool still_leased(const Written& lease, int fd, const fs::path& folder) {
  if (lease.process.space.empty()) return false;  // an older program, which relied on the lock alone
  if (lease.process.space == process_space()) return !certainly_gone(lease.process);
  return seconds_ago(fd, folder) < static_cast<double>(Lease::kStale.count());
}

// Writes who we are. Whether another machine did so at the same time is seen a moment later, where no lock keeps it out.
bool claim(int fd, const std::string& text, bool contested) {
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) return false;
  if (!contested) return true;
  std::this_thread::sleep_for(std::chrono::seconds(2));
  const auto now = read_lease(fd);
  return now && now->process == this_process();
}

}  // namespace

std::string owner_text(const LeaseOwner& owner) {
  if (owner.process == 0) return "somebody (its file \"owner\" cannot be read)";
  const std::string elsewhere = owner.host.empty() || owner.host == host_name() ? "" : " on " + owner.host;
  return fmt::format("process {}{}", owner.process, elsewhere);
}

std::unique_ptr<Lease> Lease::take(const fs::path& path, LeaseOwner* owner, std::chrono::milliseconds patience) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) throw ResourceError(fmt::format("{}: cannot open for writing: {}", path.string(), std::strerror(errno)));
  const auto held_by = [&](const LeaseOwner& other) {
    ::close(fd);
    if (owner) *owner = other;
    return nullptr;
  };
  const auto until = std::chrono::steady_clock::now() + patience;
  while (const int error = try_lock(fd)) {
    if (error != EAGAIN && error != EACCES) {
      ::close(fd);
      throw ResourceError(fmt::format("{}: cannot lock: {}", path.string(), std::strerror(error)));
    }
    const auto lease = read_lease(fd);
    if (std::chrono::steady_clock::now() >= until || (lease && lease->process == this_process())) return held_by(lease ? lease->owner() : LeaseOwner{});
    std::this_thread::sleep_for(std::chrono::milliseconds(50));  // who was killed drops its lock when its memory is gone
  }
  const auto lease = read_lease(fd);
  if (lease && still_leased(*lease, fd, path.parent_path())) return held_by(lease->owner());
  const ProcessId process = this_process();
  const bool foreign = lease && !lease->process.space.empty() && lease->process.space != process.space;
  const std::string text = fmt::format("{} {} {} {}\n", process.number, process.start.empty() ? "0" : process.start, host_name().empty() ? "-" : host_name(), process.space);
  if (!claim(fd, text, foreign)) {
    const std::string reason = std::strerror(errno);
    const auto other = foreign ? read_lease(fd) : std::nullopt;
    if (other && other->process != process) return held_by(other->owner());
    ::close(fd);
    throw ResourceError(fmt::format("{}: cannot write: {}", path.string(), reason));
  }
  return std::unique_ptr<Lease>(new Lease(fd));
}

Lease::~Lease() {
  // The file stays: removing it would let two processes lock two files of one name. Without text the lease is given back.
  if (::ftruncate(fd_, 0) != 0) errno = 0;  // the lock goes all the same
  ::close(fd_);
}

void Lease::renew() const { ::futimens(fd_, nullptr); }

std::optional<LeaseOwner> Lease::owner(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);  // asking needs no right to write
  if (fd < 0) return errno == ENOENT || errno == ENOTDIR ? std::nullopt : std::optional(LeaseOwner{});
  const bool locked = is_locked(fd);
  const auto lease = read_lease(fd);
  std::optional<LeaseOwner> found;
  if (locked) found = lease ? lease->owner() : LeaseOwner{};
  else if (lease && still_leased(*lease, fd, path.parent_path())) found = lease->owner();
  ::close(fd);
  return found;
}

std::chrono::seconds Lease::age(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  const double seconds = seconds_ago(fd, path.parent_path());
  ::close(fd);
  return std::chrono::seconds(static_cast<int64_t>(std::max(0.0, seconds)));
}

}  // namespace qb
