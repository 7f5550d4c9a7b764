#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace qb {

// A read-only memory map of a whole file. Throws InputError naming the path. Shared: views keep it alive.
// The file must not be shortened while it is mapped (replacing it by rename, as AtomicWriter does, is harmless).
class MappedFile {
 public:
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  uint64_t size() const { return size_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  // The bytes [offset, offset + length); throws InputError naming `what` and the file when they pass its end.
  std::span<const std::byte> bytes(uint64_t offset, uint64_t length, std::string_view what) const;

 private:
  MappedFile() = default;
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  uint64_t size_ = 0;
};

// Whole file as text; InputError when it cannot be read or is larger than `limit` bytes.
std::string read_text(const std::filesystem::path& path, uint64_t limit = uint64_t{1} << 32);

// Writes under a temporary name in the same folder, fsyncs, renames: a reader sees the old file or the new one.
// Throws ResourceError naming the path (full disk, no permission).
void write_atomically(const std::filesystem::path& path, std::string_view content);

// 64-bit content hash as 16 hex digits (XXH3, not cryptographic): identifies models, texts, recipes, and notices damage.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;
  void update(std::span<const std::byte> bytes);  // where one call ends and the next begins does not matter
  void update(std::string_view text);
  void update(int64_t value);
  std::string hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace qb
