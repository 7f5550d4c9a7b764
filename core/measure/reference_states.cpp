#include "core/measure/reference_states.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <span>
#include <system_error>
#include <utility>

#include "core/base/atomic_writer.h"
#include "core/base/error.h"

namespace qb {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kHeaderBytes = 128;  // a line of text, filled up with spaces
constexpr uint64_t kChecksumBytes = 16;

std::string checksum(std::span<const std::byte> bytes) {
  Hasher hasher;
  hasher.update(bytes);
  return hasher.hex();
}

[[noreturn]] void fail(const fs::path& path, const char* step, int error) {
  throw ResourceError(fmt::format("{}: cannot {}: {}", path.string(), step, std::system_category().message(error)));
}

}  // namespace

ReferenceStates::ReferenceStates(const fs::path& folder, const Key& key) : key_(key) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw ResourceError(fmt::format("{}: {}", folder.string(), error.message()));
  Hasher hasher;
  hasher.update(header());
  path_ = folder / (hasher.hex() + ".states");
  refresh();
}

ReferenceStates::~ReferenceStates() {
  if (fd_ >= 0) ::close(fd_);
}

fs::path ReferenceStates::lease() const { return fs::path(path_).replace_extension(".lease"); }

uint64_t ReferenceStates::record_bytes() const { return static_cast<uint64_t>((key_.seq_len - 1) * key_.width) * sizeof(float) + kChecksumBytes; }

uint64_t ReferenceStates::offset(int64_t window) const { return kHeaderBytes + static_cast<uint64_t>(window) * record_bytes(); }

std::string ReferenceStates::header() const {
  std::string line = fmt::format("qbench states 1 model {} tokens {} seq_len {} width {} float32", key_.model, key_.tokens, key_.seq_len, key_.width);
  line.resize(kHeaderBytes - 1, ' ');
  return line + '\n';
}

void ReferenceStates::refresh() {
  windows_ = 0;
  damage_.clear();
  tail_only_ = false;
  file_.reset();
  std::error_code error;
  if (!fs::exists(path_, error)) return;
  file_ = MappedFile::open(path_);
  const auto all = file_->bytes();
  const std::string expected = header();
  if (all.size() < kHeaderBytes || !std::ranges::equal(all.first(kHeaderBytes), std::as_bytes(std::span(expected)))) {
    damage_ = fmt::format("{}: not the header of these states", path_.string());
    return;
  }
  while (offset(windows_) < all.size()) {
    if (offset(windows_ + 1) > all.size()) {
      damage_ = fmt::format("{}: window {} ends after {} of {} bytes", path_.string(), windows_, all.size() - offset(windows_), record_bytes());
      tail_only_ = true;
      return;
    }
    const auto record = all.subspan(offset(windows_), record_bytes());
    const auto states = record.first(record.size() - kChecksumBytes);
    const std::string found = checksum(states);
    if (!std::ranges::equal(record.last(kChecksumBytes), std::as_bytes(std::span(found)))) {
      damage_ = fmt::format("{}: window {} does not have the checksum that it was written with", path_.string(), windows_);
      return;
    }
    ++windows_;
  }
}

void ReferenceStates::begin_appending(int64_t expected_windows) {
  std::error_code error;
  const uint64_t needed = static_cast<uint64_t>(std::max<int64_t>(0, expected_windows - windows_)) * record_bytes();
  if (const auto space = fs::space(path_.parent_path(), error); !error && space.available < needed)
    throw ResourceError(fmt::format("{}: the float model's states need {} MiB more, {} MiB are free", path_.string(), needed >> 20, space.available >> 20));
  if (!file_ || (!damage_.empty() && !tail_only_)) {
    // Under a new file: a process that has the old one mapped keeps what it reads.
    AtomicWriter writer(path_);
    if (windows_ > 0)
      writer.write(file_->bytes().first(offset(windows_)));
    else
      writer.write(header());
    writer.commit();
  }
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd_ < 0) fail(path_, "open it for writing", errno);
  if (::ftruncate(fd_, static_cast<off_t>(offset(windows_))) != 0) fail(path_, "cut off what is not whole", errno);
  if (::lseek(fd_, 0, SEEK_END) < 0) fail(path_, "write", errno);
}

void ReferenceStates::put(const void* data, uint64_t bytes) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::write(fd_, at, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail(path_, "write", n < 0 ? errno : ENOSPC);
    at += n;
    bytes -= static_cast<uint64_t>(n);
  }
}

void ReferenceStates::append(const at::Tensor& states) {
  const at::Tensor values = states.to(at::kCPU).to(at::kFloat).contiguous();
  if (values.numel() != (key_.seq_len - 1) * key_.width)
    throw InternalError(fmt::format("{}: a window of {} values, expected {} tokens of {}", path_.string(), values.numel(), key_.seq_len - 1, key_.width));
  const uint64_t bytes = values.nbytes();
  const std::string sum = checksum(std::as_bytes(std::span(values.const_data_ptr<float>(), static_cast<size_t>(values.numel()))));
  put(values.const_data_ptr(), bytes);
  put(sum.data(), sum.size());
}

void ReferenceStates::end_appending() {
  if (::fsync(fd_) != 0) fail(path_, "flush to disk", errno);
  if (::close(std::exchange(fd_, -1)) != 0 && errno != EINTR) fail(path_, "close", errno);
  refresh();
}

at::Tensor ReferenceStates::window(int64_t index) const {
  const auto bytes = file_->bytes(offset(index), record_bytes() - kChecksumBytes, fmt::format("window {}", index));
  // The mapping lives as long as the tensor does.
  return at::from_blob(const_cast<std::byte*>(bytes.data()), {key_.seq_len - 1, key_.width}, [file = file_](void*) {}, at::TensorOptions(at::kFloat));
}

}  // namespace qb
