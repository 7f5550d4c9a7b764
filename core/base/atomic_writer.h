#pragma once
#include <filesystem>
#include <span>
#include <string_view>

namespace qb {

// Streams bytes into a temporary file beside `path`; commit() fsyncs and renames. Without commit the temporary file is
// removed: a reader sees the old file or the whole new one. All failures are ResourceErrors that name `path`.
// A file-size limit (setrlimit) is such a failure only where SIGXFSZ is ignored; by default it ends the process.
class AtomicWriter {
 public:
  explicit AtomicWriter(std::filesystem::path path);
  ~AtomicWriter();
  AtomicWriter(const AtomicWriter&) = delete;
  AtomicWriter& operator=(const AtomicWriter&) = delete;
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  void commit();

 private:
  [[noreturn]] void fail(const char* step, int error) const;
  std::filesystem::path path_, temporary_;
  int fd_ = -1;
  bool pending_ = false;  // the temporary file exists and is ours to remove
};

// Removes from a folder what writers of processes that are gone left under temporary names.
void remove_leftovers(const std::filesystem::path& folder);

}  // namespace qb
