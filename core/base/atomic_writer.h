#pragma once
#include <filesystem>
#include <span>
#include <string>
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

// A name beside `path` that no other writer has: "PATH.SPACE-PROCESS-COUNT.tmp". SPACE stands for the host, its boot and its
// numbering of processes (containers have their own), so that a process of another one is never taken for one of ours.
std::filesystem::path temporary_name(const std::filesystem::path& path);

// Removes from a folder what writers that are certainly gone left under temporary names, files and folders alike: of this SPACE
// those whose process is no more, of others those that nobody wrote to for a day. holding: only names in which this stands.
void remove_leftovers(const std::filesystem::path& folder, const std::string& holding = {});

}  // namespace qb
