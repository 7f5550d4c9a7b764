#include "core/engine/hidden_states.h"

#include <fmt/format.h>
#include <unistd.h>

#include "core/base/error.h"

namespace qb {
namespace {

at::Tensor spilled(const std::filesystem::path& folder, int64_t elements, at::ScalarType dtype) {
  const auto bytes = static_cast<uint64_t>(elements) * static_cast<uint64_t>(at::elementSize(dtype));
  std::error_code error;
  const auto space = std::filesystem::space(folder, error);
  if (!error && space.available < bytes)
    throw ResourceError(fmt::format("{}: hidden states need {} MB of disk, {} MB are free", folder.string(), bytes >> 20, space.available >> 20));
  const auto path = folder / fmt::format("hidden-{}.tmp", ::getpid());
  at::Tensor mapped = at::from_file(path.string(), true, elements, at::TensorOptions().dtype(dtype));
  ::unlink(path.c_str());  // the map keeps it; nothing stays behind after a kill
  return mapped;
}

}  // namespace

HiddenStates::HiddenStates(const TokenSet& tokens, int64_t hidden_size, at::ScalarType dtype, int64_t resident_bytes,
                           const std::filesystem::path& folder, int64_t batch_tokens) {
  for (size_t at = 0; at < tokens.samples.size();) {
    const auto length = static_cast<int64_t>(tokens.samples[at].size());
    if (length == 0) {
      ++at;
      continue;
    }
    std::vector<int64_t> flat;
    int64_t rows = 0;
    for (; at < tokens.samples.size() && static_cast<int64_t>(tokens.samples[at].size()) == length && (rows == 0 || (rows + 1) * length <= batch_tokens);
         ++at, ++rows)
      flat.insert(flat.end(), tokens.samples[at].begin(), tokens.samples[at].end());
    ids_.push_back(at::tensor(flat, at::kLong).view({rows, length}));
    tokens_ += rows * length;
  }
  const int64_t elements = tokens_ * hidden_size;
  const bool resident = elements * static_cast<int64_t>(at::elementSize(dtype)) <= resident_bytes;
  at::Tensor all = resident ? at::empty({elements}, dtype) : spilled(folder, elements, dtype);
  int64_t used = 0;
  for (const at::Tensor& ids : ids_) {
    const int64_t n = ids.numel() * hidden_size;
    hidden_.push_back(all.slice(0, used, used + n).view({ids.size(0), ids.size(1), hidden_size}));
    used += n;
  }
}

}  // namespace qb
