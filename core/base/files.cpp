#include "core/base/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/base/atomic_writer.h"
#include "core/base/error.h"

namespace qb {
namespace {

// Closes a file descriptor on every way out.
struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

std::string reason() { return std::strerror(errno); }

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& path) {
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) throw InputError(fmt::format("{}: cannot open: {}", path.string(), reason()));
  struct stat status {};
  if (::fstat(file.fd, &status) != 0) throw InputError(fmt::format("{}: cannot read its size: {}", path.string(), reason()));
  if (!S_ISREG(status.st_mode)) throw InputError(fmt::format("{}: expected a file, found something else", path.string()));
  std::shared_ptr<MappedFile> mapped(new MappedFile);
  mapped->path_ = path;
  mapped->size_ = static_cast<uint64_t>(status.st_size);
  if (mapped->size_ > 0) {
    void* address = ::mmap(nullptr, mapped->size_, PROT_READ, MAP_PRIVATE, file.fd, 0);
    if (address == MAP_FAILED) throw ResourceError(fmt::format("{}: cannot map {} bytes: {}", path.string(), mapped->size_, reason()));
    mapped->data_ = static_cast<const std::byte*>(address);
  }
  return mapped;
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

std::span<const std::byte> MappedFile::bytes(uint64_t offset, uint64_t length, std::string_view what) const {
  if (offset > size_ || length > size_ - offset)
    throw InputError(fmt::format("{}: {} needs bytes {}..{}, but the file ends at {} (truncated?)", path_.string(), what, offset,
                                 offset + length, size_));
  return {data_ + offset, length};
}

std::string read_text(const std::filesystem::path& path, uint64_t limit) {
  auto file = MappedFile::open(path);
  if (file->size() > limit) throw InputError(fmt::format("{}: {} bytes, more than the {} expected", path.string(), file->size(), limit));
  auto bytes = file->bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void write_atomically(const std::filesystem::path& path, std::string_view content) {
  AtomicWriter writer(path);
  writer.write(content);
  writer.commit();
}

void Hasher::update(std::span<const std::byte> bytes) {
  // Eight bytes a step: FNV-1a's xor-multiply with a final avalanche in hex().
  size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, bytes.data() + i, 8);
    state_ = (state_ ^ word) * 1099511628211ull;
    state_ ^= state_ >> 29;
  }
  for (; i < bytes.size(); ++i) state_ = (state_ ^ static_cast<uint64_t>(bytes[i])) * 1099511628211ull;
}

void Hasher::update(std::string_view text) {
  update(static_cast<int64_t>(text.size()));
  update(std::as_bytes(std::span(text.data(), text.size())));
}

void Hasher::update(int64_t value) { update(std::as_bytes(std::span(&value, 1))); }

std::string Hasher::hex() const {
  uint64_t h = state_;
  h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9ull;
  h = (h ^ (h >> 27)) * 0x94d049bb133111ebull;
  return fmt::format("{:016x}", h ^ (h >> 31));
}

}  // namespace qb
