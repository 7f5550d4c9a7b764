#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>

#include "core/base/lease.h"

namespace qb {

// Who carries a run out.
using RunOwner = LeaseOwner;

// The right to work on one run folder: a lease of its file "owner".
class RunLock {
 public:
  // Throws InputError naming the run and its owner when it is held, in this process or another; ResourceError when the
  // folder cannot be written. A holder that is dying is waited for, a second at most.
  explicit RunLock(const std::filesystem::path& run_folder);

  static std::unique_ptr<RunLock> if_free(const std::filesystem::path& run_folder);  // nullptr: somebody holds it

  const Lease& lease() const { return *lease_; }

  // Whether somebody works on it; where that cannot be found out, yes.
  static bool held(const std::filesystem::path& run_folder);
  // Who holds it now; nobody: nullopt.
  static std::optional<RunOwner> owner(const std::filesystem::path& run_folder);

 private:
  explicit RunLock(std::unique_ptr<Lease> lease) : lease_(std::move(lease)) {}
  std::unique_ptr<Lease> lease_;
};

}  // namespace qb
