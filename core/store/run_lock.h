#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace qb {

// Who carries a run out.
struct RunOwner {
  int64_t process = 0;
  std::string host;  // empty: an older program, which did not say
  bool operator==(const RunOwner&) const = default;
};

// The right to work on one run folder. Held as an advisory lock on its file "owner", which the kernel drops when the
// process goes, however it goes; the file's text "PID START HOST" tells people and messages who holds it.
class RunLock {
 public:
  // Throws InputError naming the run and its owner when it is held, in this process or another; ResourceError when the
  // folder cannot be written.
  explicit RunLock(const std::filesystem::path& run_folder);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

  static bool held(const std::filesystem::path& run_folder);
  // Who holds it now; nobody: nullopt.
  static std::optional<RunOwner> owner(const std::filesystem::path& run_folder);

 private:
  int fd_ = -1;
};

}  // namespace qb
