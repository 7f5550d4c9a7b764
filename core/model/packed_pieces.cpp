#include "core/model/packed_pieces.h"

#include <numeric>

namespace qb {

at::Tensor positions_of(const std::vector<Piece>& all, int first, int count) {
  int64_t tokens = 0;
  for (int p = first; p < first + count; ++p) tokens += all[static_cast<size_t>(p)].tokens;
  at::Tensor positions = at::empty({tokens}, at::kLong);
  int64_t* out = positions.mutable_data_ptr<int64_t>();
  for (int p = first; p < first + count; ++p) {
    const Piece& piece = all[static_cast<size_t>(p)];
    std::iota(out, out + piece.tokens, piece.position);
    out += piece.tokens;
  }
  return positions;
}

}  // namespace qb
