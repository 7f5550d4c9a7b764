#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

namespace qb {

// Who has a lease.
struct LeaseOwner {
  int64_t process = 0;  // 0: the file that says it cannot be read
  std::string host;     // empty: an older program, which did not say
  bool operator==(const LeaseOwner&) const = default;
};

// "process 4711", with " on HOST" when that is another one.
std::string owner_text(const LeaseOwner& owner);

// The right to do what only one process may do at a time. An advisory lock on a file, which the kernel drops when the process goes, however
// it goes; and a lease for file systems on which other machines do not see such locks: the file's text "PID START HOST SPACE" says who
// holds it, and its time is renewed. Where the lock is free, the holder is gone when it gave the lease back (no text), when its process
// is certainly gone (same host, same boot), or, on another machine, when it has not renewed the lease for kStale.
class Lease {
 public:
  static constexpr std::chrono::seconds kStale{120};

  // nullptr when it is held, in this process or another, by `owner`; a holder that is dying is waited for, `patience` at most. Throws
  // ResourceError when the file cannot be written.
  static std::unique_ptr<Lease> take(const std::filesystem::path& file, LeaseOwner* owner = nullptr, std::chrono::milliseconds patience = {});
  ~Lease();
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  void renew() const;  // from any thread, several times within kStale

  // Who holds it now; nobody: nullopt. Where that cannot be found out, somebody whose number is 0.
  static std::optional<LeaseOwner> owner(const std::filesystem::path& file);
  // Since it was renewed last, by the file system's clock; 0: it cannot be found out.
  static std::chrono::seconds age(const std::filesystem::path& file);

 private:
  explicit Lease(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace qb
