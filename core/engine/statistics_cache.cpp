#include "core/engine/statistics_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>

#include "core/base/atomic_writer.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/engine/engine.h"
#include "core/engine/gram.h"
#include "core/engine/run_state.h"
#include "core/engine/compute_threads.h"
#include "core/format/checked_safetensors.h"

namespace qb {
namespace {

namespace fs = std::filesystem;
using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

constexpr int kFormat = 3;  // rises when the files or what is collected change
constexpr const char* kKinds = "statistics";
constexpr const char *kTokens = ".tokens", *kGram = ".gram_upper", *kAbsMax = ".abs_max", *kMeanAbs = ".mean_abs", *kSumSquares = ".sum_squares",
                     *kRows = ".rows";

// Rows of a symmetric matrix from the diagonal on, one after the other: half of the bytes.
at::Tensor upper_half(const at::Tensor& gram) {
  const int64_t n = gram.size(0);
  at::Tensor half = at::empty({n * (n + 1) / 2}, at::kFloat);
  const auto* from = gram.const_data_ptr<float>();
  auto* to = half.mutable_data_ptr<float>();
  for (int64_t r = 0; r < n; ++r) to = std::copy(from + r * n + r, from + (r + 1) * n, to);
  return half;
}

at::Tensor whole(const at::Tensor& half, int64_t n) {
  at::Tensor upper = at::empty({n, n}, at::kFloat);
  const auto* from = half.const_data_ptr<float>();
  auto* to = upper.mutable_data_ptr<float>();
  for (int64_t r = 0; r < n; from += n - r, ++r) std::copy(from, from + n - r, to + r * n + r);
  return complete_gram(upper);
}

NamedTensors encode(Statistics collected, const BlockStatistics& statistics) {
  NamedTensors tensors{{kKinds, at::tensor({static_cast<int64_t>(collected)}, at::kLong)}};
  for (const auto& [value, s] : statistics) {
    auto add = [&](const char* what, const at::Tensor& tensor) {
      if (tensor.defined()) tensors.emplace_back(std::to_string(value) + what, tensor.to(at::kCPU).contiguous());
    };
    add(kTokens, at::tensor({s.tokens}, at::kLong));
    if (s.gram.defined()) add(kGram, upper_half(s.gram.to(at::kCPU).contiguous()));
    add(kAbsMax, s.abs_max);
    add(kMeanAbs, s.mean_abs);
    add(kSumSquares, s.sum_squares);
    add(kRows, s.rows);
  }
  return tensors;
}

BlockStatistics decode(const NamedTensors& tensors, at::Device device, const fs::path& path) {
  BlockStatistics statistics;
  std::map<ValueId, at::Tensor> halves;
  for (const auto& [name, tensor] : tensors) {
    const size_t dot = name.rfind('.');
    if (dot == std::string::npos) continue;
    const std::string what = name.substr(dot);
    const ValueId value = std::stoi(name.substr(0, dot));  // what we wrote: the checksum has been compared
    ValueStatistics& s = statistics[value];
    auto own = [&] { return tensor.to(device, tensor.scalar_type(), false, true); };  // stages write to what they are given; files are mapped
    if (what == kTokens) s.tokens = tensor.item<int64_t>();
    else if (what == kGram) halves[value] = tensor;
    else if (what == kAbsMax) s.abs_max = own();
    else if (what == kMeanAbs) s.mean_abs = own();
    else if (what == kSumSquares) s.sum_squares = own();
    else if (what == kRows) s.rows = own();
  }
  for (const auto& [value, half] : halves) {
    ValueStatistics& s = statistics[value];
    const int64_t n = s.abs_max.defined() ? s.abs_max.numel() : 0;
    if (half.numel() != n * (n + 1) / 2) throw InputError(fmt::format("{}: a Gram matrix of {} numbers for {} channels", path.string(), half.numel(), n));
    s.gram = whole(half, n).to(device);
  }
  return statistics;
}

fs::path entry_path(const fs::path& folder, int block) { return folder / fmt::format("block-{:04}.safetensors", block); }

int64_t bytes_of(const fs::path& folder) {
  int64_t bytes = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) bytes += static_cast<int64_t>(entry.file_size());
  return bytes;
}

}  // namespace

StatisticsCache::StatisticsCache(const fs::path& root, const std::string& key, int64_t limit, std::function<void(const std::string&)> warn)
    : root_(root), folder_(root / key), limit_(limit), warn_(std::move(warn)) {
  std::error_code none;  // there may be no such folder yet
  fs::last_write_time(folder_, fs::file_time_type::clock::now(), none);
  for (const auto& entry : fs::directory_iterator(root_, none)) remove_leftovers(entry.path());
}

std::optional<BlockStatistics> StatisticsCache::load(int block, Statistics wanted, at::Device device) const {
  const fs::path path = entry_path(folder_, block);
  std::error_code absent;
  if (!fs::exists(path, absent)) return std::nullopt;
  try {
    const auto [stored, metadata, checked] = open_checked_safetensors(path);
    if (!checked || !stored->contains(kKinds)) throw InputError(fmt::format("{}: not statistics", path.string()));
    const at::Tensor kinds = stored->read(kKinds);
    if (kinds.scalar_type() != at::kLong || kinds.numel() != 1) throw InputError(fmt::format("{}: not statistics", path.string()));
    if ((static_cast<Statistics>(kinds.item<int64_t>()) & wanted) != wanted) return std::nullopt;
    NamedTensors tensors;
    for (const TensorInfo& info : stored->tensors()) tensors.emplace_back(info.name, stored->read(info.name));
    return decode(tensors, device, path);
  } catch (const InputError& e) {
    warn_(fmt::format("cached statistics are collected anew: {}", e.what()));
    return std::nullopt;
  }
}

void StatisticsCache::store(int block, Statistics collected, const BlockStatistics& statistics) {
  if (!writing_) return;
  const fs::path path = entry_path(folder_, block);
  std::string problem;
  try {
    const NamedTensors tensors = encode(collected, statistics);
    int64_t bytes = 0;
    for (const auto& [name, tensor] : tensors) bytes += static_cast<int64_t>(tensor.nbytes());
    fs::create_directories(folder_);
    if (make_room(path, bytes)) return write_checked_safetensors(path, tensors);
    problem = fmt::format("{}: {} MB are not enough for this model's statistics", root_.string(), limit_ / 1'000'000);
  } catch (const ResourceError& e) {
    problem = e.what();
  } catch (const fs::filesystem_error& e) {
    problem = fmt::format("{}: {}", e.path1().string(), e.code().message());
  }
  writing_ = false;
  warn_(fmt::format("statistics from block {} on are not kept for later runs: {}", block, problem));
}

// Removes other keys, those used longest ago first, until `bytes` more fit under the limit.
bool StatisticsCache::make_room(const fs::path& replaced, int64_t bytes) const {
  struct Key {
    fs::file_time_type used;
    fs::path folder;
    int64_t bytes;
  };
  std::vector<Key> others;
  int64_t total = bytes;
  for (const auto& entry : fs::directory_iterator(root_)) {
    if (!entry.is_directory()) continue;
    const int64_t size = bytes_of(entry.path());
    total += size;
    if (entry.path() != folder_) others.push_back({entry.last_write_time(), entry.path(), size});
  }
  if (fs::exists(replaced)) total -= static_cast<int64_t>(fs::file_size(replaced));
  std::sort(others.begin(), others.end(), [](const Key& a, const Key& b) { return a.used < b.used; });
  for (const Key& key : others) {
    if (total <= limit_) break;
    fs::remove_all(key.folder);
    total -= key.bytes;
  }
  return total <= limit_;
}

std::string statistics_key(const EngineJob& job, const Decoder& decoder) {
  auto part = [&](const char* name) {
    const auto it = job.fingerprint.find(name);
    return it == job.fingerprint.end() ? std::string() : it->second;
  };
  // A CPU without bfloat16 instructions computes other bits, and so does a library that cuts sums by the number of threads.
  std::string text = fmt::format("{} {} model {} calibration {} in {} as {} on {} by {}", kFormat, QBENCH_VERSION, part("model"), part("calibration"),
                                 at::toString(job.dtype), at::toString(decoder.weight_dtype()), c10::DeviceTypeName(job.device.type()), compute_threads());
  for (size_t i = 0; i < job.pipeline.size(); ++i) {
    const StageSpec& stage = job.pipeline[i];
    const MethodInfo* method = find_method(stage.method);
    if (!method || method->contract.place != Place::model) continue;
    // The model is the one that the stage makes, of its knobs, its plan and the seed.
    text += fmt::format("; {} {}, seed {}", i, stage.method, job.seed);
    for (const KnobInfo& info : method->knobs) text += fmt::format(", {} {}", info.name, to_text(knob(stage, info.name)));
    if (const auto plan = plan_path(job.folder, i, stage.method); fs::exists(plan)) text += ", " + read_text(plan);
  }
  Hasher hasher;
  hasher.update(text);
  return hasher.hex();
}

int64_t default_statistics_limit(const fs::path& root) {
  constexpr int64_t kMost = 20'000'000'000;
  std::error_code error;
  fs::path existing = fs::absolute(root);
  while (!fs::exists(existing, error) && existing.has_relative_path()) existing = existing.parent_path();
  const fs::space_info space = fs::space(existing, error);
  if (error) return kMost;
  try {
    const int64_t held = fs::exists(root) ? bytes_of(root) : 0;
    return std::min(kMost, (static_cast<int64_t>(space.available) + held) / 10);
  } catch (const fs::filesystem_error&) {
    return kMost;  // another process removes entries meanwhile
  }
}

}  // namespace qb
