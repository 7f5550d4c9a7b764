#include "core/base/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_STATIC_LINKING_ONLY  // the state as a value
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

#include "core/base/atomic_writer.h"
#include "core/base/error.h"
#include "core/base/utf8.h"

namespace qb {
namespace {

// Closes a file descriptor on every way out.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

std::string reason() { return std::system_category().message(errno); }

// Opens a regular file for reading and gives its size. A pipe or device is refused rather than waited for.
Descriptor open_regular(const std::filesystem::path& path, uint64_t& size) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) throw InputError(fmt::format("{}: cannot open: {}", path.string(), reason()));
  Descriptor file(fd);
  struct stat status {};
  if (::fstat(fd, &status) != 0) throw InputError(fmt::format("{}: cannot read its size: {}", path.string(), reason()));
  if (!S_ISREG(status.st_mode)) throw InputError(fmt::format("{}: expected a file, found something else", path.string()));
  size = static_cast<uint64_t>(status.st_size);
  return file;
}

// What git has in a file's place when Git LFS did not fetch it.
void refuse_lfs_pointer(std::string_view begin, uint64_t size, const std::filesystem::path& path) {
  if (size < 1024 && begin.starts_with("version https://git-lfs.github.com/spec/"))
    throw InputError(fmt::format("{}: a Git LFS pointer of {} bytes in place of the file itself; \"git lfs pull\" in its folder fetches it", path.string(), size));
}

// The last page reaches beyond the file. Under AddressSanitizer reading there is an error, as it is without a map.
#ifdef __SANITIZE_ADDRESS__
void guard_tail(const std::byte* data, uint64_t size, bool guarded) {
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const uint64_t tail = (page - size % page) % page;
  if (guarded)
    __asan_poison_memory_region(data + size, tail);
  else
    __asan_unpoison_memory_region(data + size, tail);
}
#else
void guard_tail(const std::byte*, uint64_t, bool) {}
#endif

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& path) {
  std::shared_ptr<MappedFile> mapped(new MappedFile);
  mapped->path_ = path;
  const Descriptor file = open_regular(path, mapped->size_);
  if (mapped->size_ > 0) {
    void* address = ::mmap(nullptr, mapped->size_, PROT_READ, MAP_PRIVATE, file.get(), 0);
    if (address == MAP_FAILED) throw ResourceError(fmt::format("{}: cannot map {} bytes: {}", path.string(), mapped->size_, reason()));
    mapped->data_ = static_cast<const std::byte*>(address);
    guard_tail(mapped->data_, mapped->size_, true);
    refuse_lfs_pointer({reinterpret_cast<const char*>(mapped->data_), std::min<uint64_t>(mapped->size_, 64)}, mapped->size_, path);
  }
  return mapped;
}

MappedFile::~MappedFile() {
  if (!data_) return;
  guard_tail(data_, size_, false);
  ::munmap(const_cast<std::byte*>(data_), size_);
}

std::span<const std::byte> MappedFile::bytes(uint64_t offset, uint64_t length, std::string_view what) const {
  if (offset > size_ || length > size_ - offset)
    throw InputError(fmt::format("{}: {} needs {} bytes at {}, but the file ends at {} (truncated?)", path_.string(), printable(what), length,
                                 offset, size_));
  return {data_ + offset, length};
}

std::string read_text(const std::filesystem::path& path, uint64_t limit) {
  uint64_t size = 0;
  const Descriptor file = open_regular(path, size);
  if (size > limit) throw InputError(fmt::format("{}: {} bytes, more than the {} expected", path.string(), size, limit));
  // Read rather than mapped: a text may change while it is read, and the size is only a hint.
  std::string text(size, '\0');
  uint64_t filled = 0;
  while (filled < size) {
    const ssize_t n = ::read(file.get(), text.data() + filled, size - filled);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw InputError(fmt::format("{}: cannot read: {}", path.string(), reason()));
    if (n == 0) break;
    filled += static_cast<uint64_t>(n);
  }
  text.resize(filled);
  refuse_lfs_pointer(text, filled, path);
  return text;
}

void write_atomically(const std::filesystem::path& path, std::string_view content) {
  AtomicWriter writer(path);
  writer.write(content);
  writer.commit();
}

struct Hasher::State {
  XXH3_state_t xxh;
};

Hasher::Hasher() : state_(std::make_unique<State>()) { XXH3_64bits_reset(&state_->xxh); }
Hasher::~Hasher() = default;

void Hasher::update(std::span<const std::byte> bytes) { XXH3_64bits_update(&state_->xxh, bytes.data(), bytes.size()); }

void Hasher::update(std::string_view text) {
  update(int64_t{0x74657874});  // "text": an empty text is not the number 0
  update(static_cast<int64_t>(text.size()));
  update(std::as_bytes(std::span(text.data(), text.size())));
}

void Hasher::update(int64_t value) { update(std::as_bytes(std::span(&value, 1))); }

std::string Hasher::hex() const { return fmt::format("{:016x}", XXH3_64bits_digest(&state_->xxh)); }

}  // namespace qb
