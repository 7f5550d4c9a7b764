#include "core/base/atomic_writer.h"

#include <fcntl.h>
#include <signal.h>
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <system_error>
#include <utility>

#include "core/base/error.h"

namespace qb {

AtomicWriter::AtomicWriter(std::filesystem::path path) : path_(std::move(path)) {
  static std::atomic<unsigned> counter{0};  // two threads may write beside each other
  do {
    temporary_ = path_;
    temporary_ += fmt::format(".{}-{}.tmp", ::getpid(), counter++);
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  } while (fd_ < 0 && errno == EEXIST);  // what a killed process of the same id left is not ours to overwrite
  if (fd_ < 0) fail("create a temporary file beside it", errno);
  pending_ = true;
}

AtomicWriter::~AtomicWriter() {
  if (fd_ >= 0) ::close(fd_);
  if (pending_) ::unlink(temporary_.c_str());
}

void AtomicWriter::fail(const char* step, int error) const {
  throw ResourceError(fmt::format("{}: cannot {}: {}", path_.string(), step, std::system_category().message(error)));
}

void AtomicWriter::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail("write", n < 0 ? errno : ENOSPC);
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

void AtomicWriter::write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }

void AtomicWriter::commit() {
  if (::fsync(fd_) != 0) fail("flush to disk", errno);
  // Some file systems report a full disk only here.
  if (::close(std::exchange(fd_, -1)) != 0 && errno != EINTR) fail("close", errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("rename into place", errno);
  pending_ = false;
  // The rename itself must survive a power cut.
  const int folder = ::open(path_.has_parent_path() ? path_.parent_path().c_str() : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return;  // written, in a folder that we may enter but not read
  const int error = ::fsync(folder) == 0 ? 0 : errno;
  ::close(folder);
  if (error != 0 && error != EINVAL) fail("flush its folder to disk", error);  // EINVAL: a file system without such a thing
}

void remove_leftovers(const std::filesystem::path& folder) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();  // WHAT.PROCESS-COUNT.tmp
    if (!name.ends_with(".tmp")) continue;
    const size_t dash = name.rfind('-'), dot = name.rfind('.', dash);
    if (dash == std::string::npos || dot == std::string::npos) continue;
    pid_t process = 0;
    const char* end = name.data() + dash;
    if (const auto [at, error] = std::from_chars(name.data() + dot + 1, end, process); error != std::errc() || at != end || process <= 0) continue;
    if (::kill(process, 0) != 0 && errno == ESRCH) std::filesystem::remove(entry.path(), ignored);
  }
}

}  // namespace qb
