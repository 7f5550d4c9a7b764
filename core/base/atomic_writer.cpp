#include "core/base/atomic_writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <optional>
#include <regex>
#include <system_error>
#include <utility>

#include "core/base/error.h"
#include "core/base/process.h"

namespace qb {

namespace {

// Of a name that temporary_name() made.
struct Writer {
  std::string space;
  pid_t process = 0;
};

std::optional<Writer> writer_of(const std::string& name) {
  static const std::regex form(R"(.+\.(?:([0-9a-f]{8})-)?([0-9]{1,9})-[0-9]+\.tmp)");  // without a space: by an older program
  std::smatch found;
  if (!std::regex_match(name, found, form)) return std::nullopt;
  Writer writer{found[1], 0};
  const std::string number = found[2];
  std::from_chars(number.data(), number.data() + number.size(), writer.process);
  return writer.process > 0 ? std::optional(writer) : std::nullopt;
}

bool untouched_for_a_day(const std::filesystem::path& path) {
  std::error_code error;
  auto latest = std::filesystem::last_write_time(path, error);
  if (error) return false;
  for (const auto& inner : std::filesystem::directory_iterator(path, error)) {
    std::error_code gone;
    if (const auto written = inner.last_write_time(gone); !gone) latest = std::max(latest, written);
  }
  return std::filesystem::file_time_type::clock::now() - latest > std::chrono::hours(24);
}

}  // namespace

std::filesystem::path temporary_name(const std::filesystem::path& path) {
  static std::atomic<unsigned> counter{0};  // two threads may write beside each other
  std::filesystem::path temporary = path;
  temporary += fmt::format(".{}-{}-{}.tmp", process_space(), ::getpid(), counter++);
  return temporary;
}

AtomicWriter::AtomicWriter(std::filesystem::path path) : path_(std::move(path)) {
  do {
    temporary_ = temporary_name(path_);
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

void remove_leftovers(const std::filesystem::path& folder, const std::string& holding) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.find(holding) == std::string::npos) continue;
    const auto writer = writer_of(name);
    if (!writer) continue;
    const bool gone = writer->space == process_space() ? certainly_gone({writer->process, {}, writer->space}) : untouched_for_a_day(entry.path());
    if (gone) std::filesystem::remove_all(entry.path(), ignored);
  }
}

}  // namespace qb
