#include "core/base/atomic_writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "core/base/error.h"

namespace qb {

AtomicWriter::AtomicWriter(std::filesystem::path path) : path_(std::move(path)) {
  static std::atomic<unsigned> counter{0};  // two threads may write beside each other
  temporary_ = path_;
  temporary_ += fmt::format(".{}-{}.tmp", ::getpid(), counter++);
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) fail("create a temporary file beside it");
}

AtomicWriter::~AtomicWriter() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

void AtomicWriter::fail(const char* step) {
  throw ResourceError(fmt::format("{}: cannot {}: {}", path_.string(), step, std::strerror(errno)));
}

void AtomicWriter::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("write");
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

void AtomicWriter::write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }

void AtomicWriter::commit() {
  if (::fsync(fd_) != 0) fail("flush to disk");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("rename into place");
  ::close(fd_);
  fd_ = -1;
  // The rename itself must survive a power cut.
  const int folder = ::open(path_.has_parent_path() ? path_.parent_path().c_str() : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) {
    ::fsync(folder);
    ::close(folder);
  }
}

}  // namespace qb
