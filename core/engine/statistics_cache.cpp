#include "core/engine/statistics_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>

#include "core/base/atomic_writer.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/engine/device.h"
#include "core/engine/engine.h"
#include "core/engine/gram.h"
#include "core/engine/module_name.h"
#include "core/engine/run_state.h"
#include "core/engine/compute_threads.h"
#include "core/format/checked_safetensors.h"

namespace qb {
namespace {

namespace fs = std::filesystem;
using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

constexpr int kFormat = 4;  // rises when the files or what is collected change
constexpr const char *kStatistics = "statistics", *kStates = "states", *kChoices = "choices";  // kinds of files; a tensor of that name is in each
constexpr const char* kPassed = "passed";
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
  NamedTensors tensors{{kStatistics, at::tensor({static_cast<int64_t>(collected)}, at::kLong)}};
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

// Of what other processes may remove meanwhile.
int64_t bytes_of(const fs::path& folder) {
  int64_t bytes = 0;
  std::error_code gone;
  for (auto entry = fs::recursive_directory_iterator(folder, gone); !gone && entry != fs::recursive_directory_iterator(); entry.increment(gone)) {
    std::error_code none;
    if (const auto size = entry->file_size(none); !none && entry->is_regular_file(none)) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

void touch(const fs::path& path) {
  std::error_code none;
  fs::last_write_time(path, fs::file_time_type::clock::now(), none);
}

}  // namespace

StatisticsCache::StatisticsCache(const fs::path& root, const std::string& key, int64_t limit, std::function<void(const std::string&)> warn)
    : root_(root), folder_(root / key), limit_(limit), warn_(std::move(warn)) {
  touch(folder_);
  std::error_code none;  // there may be no such folder yet
  for (const auto& entry : fs::directory_iterator(root_, none)) remove_leftovers(entry.path());
}

fs::path StatisticsCache::of_float(int block, bool sample) const { return folder_ / fmt::format("{}-{:04}.safetensors", sample ? "sample" : "block", block); }

bool StatisticsCache::made_by_another(int block, bool sample) {
  constexpr std::chrono::seconds kStands{60};  // who has not renewed its lease for so long is paused, or at something very large
  if (making_) return false;
  // Each kind has a maker of its own: one of the sample alone never makes the others.
  const fs::path file = folder_ / (sample ? "sample.lease" : "block.lease");
  try {
    fs::create_directories(folder_);
    making_ = Lease::take(file);
  } catch (const std::exception&) {
    return false;  // a cache that cannot be written is of no use to wait for
  }
  if (making_) return false;
  std::error_code none;
  if (fs::exists(of_float(block, sample), none) || fs::exists(of_float(block + 1, sample), none)) return false;  // with fewer kinds than are wanted, or passed by
  return Lease::age(file) < kStands;
}

void StatisticsCache::go_on() {
  const auto now = std::chrono::steady_clock::now();
  if (!making_ || now - renewed_ < std::chrono::seconds(10)) return;
  making_->renew();
  renewed_ = now;
}

void StatisticsCache::leave() { making_.reset(); }

fs::path StatisticsCache::behind_quantized(int block, const std::string& inputs) const {
  return root_ / kPassed / fmt::format("block-{:04}-{}.safetensors", block, inputs);
}

// The tensors of a sound file of that kind.
std::optional<NamedTensors> StatisticsCache::read(const fs::path& place, const char* kind) const {
  std::error_code absent;
  if (!fs::exists(place, absent)) return std::nullopt;
  try {
    const auto [stored, metadata, checked] = open_checked_safetensors(place);
    if (!checked || !stored->contains(kind)) throw InputError(fmt::format("{}: not {}", place.string(), kind));
    NamedTensors tensors;
    for (const TensorInfo& info : stored->tensors()) tensors.emplace_back(info.name, stored->read(info.name));
    if (place.parent_path() != folder_) {
      touch(place);
      own_.insert(place);
    }
    return tensors;
  } catch (const InputError& e) {
    if (fs::exists(place, absent)) warn_(fmt::format("cached {} are made anew: {}", kind, e.what()));  // another process may have removed it meanwhile
    return std::nullopt;
  }
}

void StatisticsCache::write(const fs::path& place, const char* kind, NamedTensors tensors) {
  const fs::path folder = place.parent_path();
  if (full_.contains(folder)) return;
  std::string problem;
  try {
    int64_t bytes = 0;
    for (const auto& [name, tensor] : tensors) bytes += static_cast<int64_t>(tensor.nbytes());
    fs::create_directories(folder);
    if (make_room(place, bytes)) {
      write_checked_safetensors(place, tensors);
      own_.insert(place);
      return;
    }
    // Where errors are passed on the first blocks are the likeliest to be met again: that others do not fit is nothing to tell.
    if (folder.filename() == kPassed) {
      full_.insert(folder);
      leave();
      return;
    }
    problem = fmt::format("{}: {} MB are not enough for this model's", root_.string(), limit_ / 1'000'000);
  } catch (const ResourceError& e) {
    problem = e.what();
  } catch (const fs::filesystem_error& e) {
    problem = fmt::format("{}: {}", e.path1().string(), e.code().message());
  }
  full_.insert(folder);
  leave();
  warn_(fmt::format("{} are not kept for later runs from here on: {}", kind, problem));
}

std::optional<BlockStatistics> StatisticsCache::load(const fs::path& place, Statistics wanted, at::Device device) const {
  const auto tensors = read(place, kStatistics);
  if (!tensors) return std::nullopt;
  try {
    for (const auto& [name, tensor] : *tensors) {
      if (name != kStatistics) continue;
      if (tensor.scalar_type() != at::kLong || tensor.numel() != 1) throw InputError(fmt::format("{}: not statistics", place.string()));
      if ((static_cast<Statistics>(tensor.item<int64_t>()) & wanted) != wanted) return std::nullopt;
    }
    return decode(*tensors, device, place);
  } catch (const InputError& e) {
    warn_(fmt::format("cached statistics are made anew: {}", e.what()));
    return std::nullopt;
  }
}

void StatisticsCache::store(const fs::path& place, Statistics collected, const BlockStatistics& statistics) { write(place, kStatistics, encode(collected, statistics)); }

std::optional<at::Tensor> StatisticsCache::load_states(int block) const {
  if (auto tensors = read(folder_ / fmt::format("states-{:04}.safetensors", block), kStates)) return std::move(tensors->front().second);
  return std::nullopt;
}

void StatisticsCache::store_states(int block, const at::Tensor& states) {
  write(folder_ / fmt::format("states-{:04}.safetensors", block), kStates, {{kStates, states}});
}

std::optional<Choices> StatisticsCache::load_choices(int block, const std::string& depends_on, at::Device device) const {
  const auto tensors = read(root_ / kChoices / fmt::format("block-{:04}-{}.safetensors", block, depends_on), kChoices);
  if (!tensors) return std::nullopt;
  Choices choices;
  for (const auto& [name, tensor] : *tensors)
    if (name != kChoices) choices[name] = tensor.numel() == 0 ? at::Tensor() : tensor.to(device, tensor.scalar_type(), false, true);
  return choices;
}

void StatisticsCache::store_choices(int block, const std::string& depends_on, const Choices& choices) {
  NamedTensors tensors{{kChoices, at::tensor({static_cast<int64_t>(choices.size())}, at::kLong)}};
  for (const auto& [name, tensor] : choices) tensors.emplace_back(name, tensor.defined() ? tensor : at::empty({0}, at::kFloat));
  write(root_ / kChoices / fmt::format("block-{:04}-{}.safetensors", block, depends_on), kChoices, std::move(tensors));
}

// Removes what this run does not use, what was used longest ago first, until `bytes` more fit under the limit.
bool StatisticsCache::make_room(const fs::path& replaced, int64_t bytes) const {
  struct Unit {
    fs::file_time_type used;
    fs::path path;
    int64_t bytes;
    bool passed;
  };
  std::vector<Unit> others;
  int64_t total = bytes, passed = 0;
  const bool to_passed = replaced.parent_path().filename() == kPassed;
  if (to_passed) passed = bytes;
  std::error_code none;  // another process may remove what is listed
  for (const auto& entry : fs::directory_iterator(root_, none)) {
    if (!entry.is_directory(none)) continue;
    const fs::path name = entry.path().filename();
    if (name != kPassed && name != kChoices) {
      const int64_t size = bytes_of(entry.path());
      total += size;
      if (entry.path() != folder_) others.push_back({entry.last_write_time(none), entry.path(), size, false});
      continue;
    }
    for (const auto& file : fs::directory_iterator(entry.path(), none)) {
      std::error_code gone;
      const auto size = static_cast<int64_t>(file.file_size(gone));
      const auto used = file.last_write_time(gone);
      if (gone) continue;
      total += size;
      if (name == kPassed) passed += size;
      if (!own_.contains(file.path())) others.push_back({used, file.path(), size, name == kPassed});
    }
  }
  if (const auto size = fs::file_size(replaced, none); !none) {
    total -= static_cast<int64_t>(size);
    if (to_passed) passed -= static_cast<int64_t>(size);
  }
  std::sort(others.begin(), others.end(), [](const Unit& a, const Unit& b) { return a.used < b.used; });
  const int64_t share = limit_ / 4;
  for (const Unit& unit : others) {
    const bool needed = total > limit_ || (to_passed && passed > share && unit.passed);
    if (!needed || unit.path == replaced) continue;
    fs::remove_all(unit.path, none);
    total -= unit.bytes;
    if (unit.passed) passed -= unit.bytes;
  }
  return total <= limit_ && (!to_passed || passed <= share);
}

std::string whole_text(const std::optional<QuantSpec>& spec, SpecRole role) {
  if (!spec) return "float";
  std::string text;
  for (const SpecField& field : spec_fields(role)) text += fmt::format("{} {}, ", field.knob.name, to_text(field.get(*spec)));
  return text;
}

std::string whole_text(const StageSpec& stage) {
  std::string text = stage.method;
  for (const KnobInfo& info : find_method(stage.method)->knobs) text += fmt::format(", {} {}", info.name, to_text(knob(stage, info.name)));
  return text;
}

std::string behind(const std::string& before, const fs::path& written, const BlockInfo& block, const Scheme& scheme) {
  Hasher hasher;
  hasher.update(before);
  hasher.update(MappedFile::open(written)->bytes());
  for (const LinearInfo& linear : block.linears) hasher.update(whole_text(scheme.activations_of(module_of(linear)), SpecRole::activations));
  hasher.update(whole_text(scheme.kv_cache, SpecRole::cache));
  return hasher.hex();
}

std::string statistics_key(const EngineJob& job, const Decoder& decoder) {
  auto part = [&](const char* name) {
    const auto it = job.fingerprint.find(name);
    return it == job.fingerprint.end() ? std::string() : it->second;
  };
  // Another CPU computes other bits (hosts may share a workspace), and so does a library that cuts sums by the number of threads.
  std::string text = fmt::format("{} {} model {} calibration {} measured {} in {} as {} on {} by {}, {}", kFormat, QBENCH_VERSION, part("model"), part("calibration"), job.measured_tokens,
                                 at::toString(job.dtype), at::toString(decoder.weight_dtype()), c10::DeviceTypeName(job.device.type()), compute_threads(), cpu_name());
  for (size_t i = 0; i < job.pipeline.size(); ++i) {
    const StageSpec& stage = job.pipeline[i];
    const MethodInfo* method = find_method(stage.method);
    if (!method || method->contract.place != Place::model) continue;
    // The model is the one that the stage makes, of its knobs, its plan and the seed.
    text += fmt::format("; {} {}, seed {}", i, whole_text(stage), job.seed);
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
