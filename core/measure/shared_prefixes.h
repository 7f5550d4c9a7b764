#pragma once
#include <cstdint>
#include <utility>
#include <vector>

#include "core/model/packed_pieces.h"

namespace qb {

// Sequences of tokens as a tree: what several begin with is one piece, and computed once. Pieces stand depth first, so that
// parents come before what continues them.
class SharedPrefixes {
 public:
  explicit SharedPrefixes(const std::vector<std::vector<int32_t>>& sequences);

  const std::vector<Piece>& pieces() const { return pieces_; }
  std::vector<Piece>& pieces() { return pieces_; }
  const int32_t* tokens(int piece) const { return tokens_.data() + begins_[static_cast<size_t>(piece)]; }
  int64_t all_tokens() const { return static_cast<int64_t>(tokens_.size()); }
  // Where a token of a sequence stands: the piece, and which of its tokens. Both given from 0.
  std::pair<int, int64_t> place(size_t sequence, int64_t token) const;

 private:
  void grow(const std::vector<std::vector<int32_t>>& sequences, const std::vector<size_t>& order, size_t low, size_t high, int64_t depth, int parent);
  std::vector<Piece> pieces_;
  std::vector<int32_t> tokens_;   // of all pieces, one behind the other
  std::vector<size_t> begins_;    // by piece
  std::vector<int> last_;         // by sequence: the piece that it ends in
};

}  // namespace qb
