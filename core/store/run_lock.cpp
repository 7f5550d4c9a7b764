#include "core/store/run_lock.h"

#include <fmt/format.h>

#include "core/base/error.h"

namespace qb {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

static fs::path owner_path(const fs::path& run_folder) { return run_folder / "owner"; }

RunLock::RunLock(const fs::path& run_folder) {
  LeaseOwner other;
  lease_ = Lease::take(owner_path(run_folder), &other, 1s);
  if (!lease_) throw InputError(fmt::format("{}: this run is already being carried out by {}", run_folder.string(), owner_text(other)));
}

std::unique_ptr<RunLock> RunLock::if_free(const fs::path& run_folder) {
  auto lease = Lease::take(owner_path(run_folder));
  return lease ? std::unique_ptr<RunLock>(new RunLock(std::move(lease))) : nullptr;
}

bool RunLock::held(const fs::path& run_folder) { return owner(run_folder).has_value(); }

std::optional<RunOwner> RunLock::owner(const fs::path& run_folder) { return Lease::owner(owner_path(run_folder)); }

}  // namespace qb
