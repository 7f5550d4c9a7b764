#pragma once
#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "core/base/lease.h"
#include "core/method/method.h"
#include "core/quant/spec_fields.h"

namespace qb {

struct EngineJob;

using BlockStatistics = std::map<ValueId, ValueStatistics>;

// What runs of one model on one calibration set have in common, kept between them:
//   root/<key>/block-0007.safetensors    a block's statistics when the float model's states enter it
//   root/<key>/sample-0007.safetensors   the same on the measured sample alone, for pipelines that learn nothing from the text
//   root/<key>/states-0007.safetensors   the float model's hidden states behind the block, of the measured sample
//   root/passed/block-0007-<inputs>.safetensors  statistics where the blocks before were quantized: `inputs` is made of their contents
//   root/choices/block-0007-<all that they depend on>.safetensors  what a stage decided by searching
// Nothing here fails a run: what cannot be read is made anew, what cannot be written is not kept; `warn` is told why. Files come
// whole or not at all and have checksums, so that processes share a cache; of the float model's statistics one of them is the maker
// (root/<key>/block.lease), whom others wait for.
class StatisticsCache {
 public:
  // At most `limit` bytes are kept of all together, a quarter of them under "passed": what was used longest ago goes first, a key as a whole.
  StatisticsCache(const std::filesystem::path& root, const std::string& key, int64_t limit, std::function<void(const std::string&)> warn);

  // Places of a block's statistics.
  std::filesystem::path of_float(int block, bool sample) const;
  std::filesystem::path behind_quantized(int block, const std::string& inputs) const;

  // A block's statistics on the device, when at least `wanted` was stored and the file is sound.
  std::optional<BlockStatistics> load(const std::filesystem::path& place, Statistics wanted, at::Device device) const;
  void store(const std::filesystem::path& place, Statistics collected, const BlockStatistics& statistics);

  // [tokens, carried width] in the run's dtype, on the CPU; mapped, not to be written to.
  std::optional<at::Tensor> load_states(int block) const;
  void store_states(int block, const at::Tensor& states);

  // Whether another process collects the float model's statistics now and goes on with it, so that a block's are worth waiting for;
  // else this one is known to do so from here on.
  bool made_by_another(int block, bool sample);
  void go_on();  // several times a minute, while this process makes them
  void leave();  // no more of them come from this process

  std::optional<Choices> load_choices(int block, const std::string& depends_on, at::Device device) const;
  void store_choices(int block, const std::string& depends_on, const Choices& choices);

 private:
  using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;
  std::optional<NamedTensors> read(const std::filesystem::path& place, const char* kind) const;
  void write(const std::filesystem::path& place, const char* kind, NamedTensors tensors);
  bool make_room(const std::filesystem::path& replaced, int64_t bytes) const;

  std::filesystem::path root_, folder_;
  int64_t limit_;
  std::function<void(const std::string&)> warn_;
  std::unique_ptr<Lease> making_;
  std::chrono::steady_clock::time_point renewed_{};
  std::set<std::filesystem::path> full_;       // folders that take no more
  mutable std::set<std::filesystem::path> own_;  // files that this run used
};

// What the statistics of a float model depend on: jobs of one key collect the same bits.
std::string statistics_key(const EngineJob& job, const Decoder& decoder);

// What enters a block behind a quantized one: `before` of what entered that, and what was written of it. The rounding of
// inputs, keys and values counts too.
std::string behind(const std::string& before, const std::filesystem::path& written, const BlockInfo& block, const Scheme& scheme);

// All that says how numbers are quantized and how their grids are searched; nullopt: not at all.
std::string whole_text(const std::optional<QuantSpec>& spec, SpecRole role);
// A stage with all its knobs, those left out too.
std::string whole_text(const StageSpec& stage);

// The limit where the user gives none: 20 GB, or a tenth of what the disk could give if that is less.
int64_t default_statistics_limit(const std::filesystem::path& root);

}  // namespace qb
