#include "core/engine/hidden_states.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstring>

#include "core/base/atomic_writer.h"
#include "core/base/error.h"

namespace qb {
namespace {

at::Tensor spilled(const std::filesystem::path& folder, int64_t elements, at::ScalarType dtype) {
  const auto bytes = static_cast<uint64_t>(elements) * static_cast<uint64_t>(at::elementSize(dtype));
  const auto path = temporary_name(folder / "hidden");
  // Reserved on disk first: a write to a map of a full disk would kill the process.
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  const int failure = fd < 0 ? errno : ::posix_fallocate(fd, 0, static_cast<off_t>(bytes));
  if (fd >= 0) ::close(fd);
  if (failure != 0) {
    ::unlink(path.c_str());
    throw ResourceError(fmt::format("{}: hidden states need {} MB of disk: {}", folder.string(), (bytes >> 20) + 1, std::strerror(failure)));
  }
  at::Tensor mapped = at::from_file(path.string(), true, elements, at::TensorOptions().dtype(dtype));
  ::unlink(path.c_str());  // the map keeps it; nothing stays behind after a kill
  return mapped;
}

}  // namespace

HiddenStates::HiddenStates(const TokenSet& tokens, int64_t width, at::ScalarType dtype, int64_t resident_bytes,
                           const std::filesystem::path& folder, int64_t batch_tokens, int64_t drawn_tokens) {
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
  const int64_t elements = tokens_ * width;
  const bool resident = elements * static_cast<int64_t>(at::elementSize(dtype)) <= resident_bytes;
  at::Tensor all = resident ? at::empty({elements}, dtype) : spilled(folder, elements, dtype);
  int64_t used = 0;
  for (const at::Tensor& ids : ids_) {
    const int64_t n = ids.numel() * width;
    hidden_.push_back(all.slice(0, used, used + n).view({ids.size(0), ids.size(1), width}));
    used += n;
  }
  for (size_t first = 0, last; first < ids_.size(); first = last) {
    const int64_t length = ids_[first].size(1);
    int64_t rows = ids_[first].size(0);
    for (last = first + 1; last < ids_.size() && ids_[last].size(1) == length && (rows + ids_[last].size(0)) * length <= drawn_tokens; ++last) rows += ids_[last].size(0);
    const int64_t start = hidden_[first].storage_offset();
    drawn_.push_back(all.slice(0, start, start + rows * length * width).view({rows, length, width}));
  }
}

}  // namespace qb
