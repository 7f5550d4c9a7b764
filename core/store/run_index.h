#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace qb {

// What a list of runs says of one of them: its folder's small files as they were read.
struct IndexedRun {
  int64_t stamp = 0;   // of these files when they were read: another one means that they are to be read again
  std::string report;  // report.json without blocks
  std::string name, tags, notes;
  std::string damage;  // what is wrong with report.json; empty: nothing
};

// A host's own memory of a workspace's run folders, so that a list of a thousand runs does not read a thousand reports:
// workspace/cache/index-HOST.db. Inside the workspace it goes when that goes, and leaves nothing in anybody's home; one a host,
// since SQLite's locks and shared memory are not to be trusted across hosts. Run folders are the truth: whatever fails here
// (no permission, a full disk, no locks on this file system, damage) costs time only. Then nothing is kept, and the workspace
// goes on with what it read. Several processes of a host may use it at once. Not thread-safe.
class RunIndex {
 public:
  explicit RunIndex(const std::filesystem::path& workspace);
  ~RunIndex();
  static std::filesystem::path file(const std::filesystem::path& workspace);  // of this host

  std::map<std::string, IndexedRun> read();  // by id
  void put(const std::vector<std::pair<std::string, IndexedRun>>& runs);
  void remove(const std::vector<std::string>& ids);
  bool kept() const;                           // on disk
  bool disk_full() const { return disk_full_; }

 private:
  struct Database;
  template <class F>
  void attempt(F action);
  std::unique_ptr<Database> database_;  // nullptr: nothing is kept
  bool disk_full_ = false;
};

}  // namespace qb
