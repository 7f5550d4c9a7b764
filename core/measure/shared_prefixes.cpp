#include "core/measure/shared_prefixes.h"

#include <algorithm>
#include <numeric>

#include "core/base/error.h"

namespace qb {

SharedPrefixes::SharedPrefixes(const std::vector<std::vector<int32_t>>& sequences) : last_(sequences.size(), -1) {
  std::vector<size_t> order(sequences.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return sequences[a] < sequences[b]; });
  grow(sequences, order, 0, order.size(), 0, -1);
}

// The sequences order[low … high) agree in their first `depth` tokens, which `parent` ends with.
void SharedPrefixes::grow(const std::vector<std::vector<int32_t>>& sequences, const std::vector<size_t>& order, size_t low, size_t high, int64_t depth, int parent) {
  for (; low < high && static_cast<int64_t>(sequences[order[low]].size()) == depth; ++low) last_[order[low]] = parent;
  while (low < high) {
    const std::vector<int32_t>& first = sequences[order[low]];
    size_t end = low + 1;
    while (end < high && sequences[order[end]][static_cast<size_t>(depth)] == first[static_cast<size_t>(depth)]) ++end;
    // In order: what the first and the last agree in, all between them have too.
    const std::vector<int32_t>& last = sequences[order[end - 1]];
    const int64_t agreed = std::mismatch(first.begin(), first.end(), last.begin(), last.end()).first - first.begin();
    const int piece = static_cast<int>(pieces_.size());
    pieces_.push_back({parent, depth, agreed - depth});
    begins_.push_back(tokens_.size());
    tokens_.insert(tokens_.end(), first.begin() + depth, first.begin() + agreed);
    grow(sequences, order, low, end, agreed, piece);
    low = end;
  }
}

std::pair<int, int64_t> SharedPrefixes::place(size_t sequence, int64_t token) const {
  for (int piece = last_[sequence]; piece >= 0; piece = pieces_[static_cast<size_t>(piece)].parent)
    if (const int64_t offset = token - pieces_[static_cast<size_t>(piece)].position; offset >= 0) return {piece, offset};
  throw InternalError("a token before the beginning of its sequence");
}

}  // namespace qb
