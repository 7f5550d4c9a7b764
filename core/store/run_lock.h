#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

namespace qb {

// Who carries a run out.
struct RunOwner {
  int64_t process = 0;  // 0: the file that says it cannot be read
  std::string host;     // empty: an older program, which did not say
  bool operator==(const RunOwner&) const = default;
};

// "process 4711", with " on HOST" when that is another one.
std::string owner_text(const RunOwner& owner);

// The right to work on one run folder. An advisory lock on its file "owner", which the kernel drops when the process goes, however
// it goes; and a lease for file systems on which other machines do not see such locks: the file's text "PID START HOST SPACE" says who
// holds it, and its time is renewed. Where the lock is free, the holder is gone when it gave the lease back (no text), when its process
// is certainly gone (same host, same boot), or, on another machine, when it has not renewed the lease for kStale.
class RunLock {
 public:
  static constexpr std::chrono::seconds kStale{120};

  // Throws InputError naming the run and its owner when it is held, in this process or another; ResourceError when the
  // folder cannot be written. A holder that is dying is waited for, a second at most.
  explicit RunLock(const std::filesystem::path& run_folder);
  // The same for other work that one process does for all: a lease of that file. nullptr: another one has it.
  static std::unique_ptr<RunLock> of_file(const std::filesystem::path& file);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

  void renew() const;  // from any thread, several times within kStale

  // Whether somebody works on it; where that cannot be found out, yes.
  static bool held(const std::filesystem::path& run_folder);
  // Who holds it now; nobody: nullopt.
  static std::optional<RunOwner> owner(const std::filesystem::path& run_folder);

 private:
  RunLock(std::filesystem::path file, int attempts);
  std::filesystem::path path_;
  int fd_ = -1;
};

}  // namespace qb
