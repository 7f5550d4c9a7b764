#pragma once
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "core/method/method.h"

namespace qb {

struct EngineJob;

using BlockStatistics = std::map<ValueId, ValueStatistics>;

// The statistics of a float model's blocks, kept between the runs of one model on one calibration set:
// root/<key>/block-0000.safetensors. Nothing here fails a run: what cannot be read is collected anew, what cannot be written
// is not kept; `warn` is told why.
class StatisticsCache {
 public:
  // Of all keys together, at most `limit` bytes are kept: the keys used longest ago go first.
  StatisticsCache(const std::filesystem::path& root, const std::string& key, int64_t limit, std::function<void(const std::string&)> warn);

  // A block's statistics on the device, when at least `wanted` was stored and the file is sound.
  std::optional<BlockStatistics> load(int block, Statistics wanted, at::Device device) const;
  void store(int block, Statistics collected, const BlockStatistics& statistics);

 private:
  bool make_room(const std::filesystem::path& replaced, int64_t bytes) const;

  std::filesystem::path root_, folder_;
  int64_t limit_;
  std::function<void(const std::string&)> warn_;
  bool writing_ = true;
};

// What the statistics of a job without propagation depend on: jobs of one key collect the same bits.
std::string statistics_key(const EngineJob& job, const Decoder& decoder);

// The limit where the user gives none: 20 GB, or a tenth of what the disk could give if that is less.
int64_t default_statistics_limit(const std::filesystem::path& root);

}  // namespace qb
