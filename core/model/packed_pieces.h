#pragma once
#include <ATen/ATen.h>

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

namespace qb {

// Some tokens of a sequence: those behind what its parents hold. Sequences that begin alike share the pieces they begin with.
struct Piece {
  int parent = -1;        // the piece that it continues; -1: none, it begins a sequence
  int64_t position = 0;   // of its first token in its sequences
  int64_t tokens = 0;
  bool kept = false;      // a piece of a later row continues it
};

// Keys and values of pieces that later rows continue, of one block.
class PieceCache {
 public:
  void keep(int piece, const at::Tensor& keys, const at::Tensor& values) { pieces_[piece] = {keys.clone(), values.clone()}; }
  const std::pair<at::Tensor, at::Tensor>& at(int piece) const { return pieces_.at(piece); }  // [1, tokens, heads, dim]
  void clear() { pieces_.clear(); }

 private:
  std::map<int, std::pair<at::Tensor, at::Tensor>> pieces_;
};

// One row [1, tokens] of pieces, one behind the other: each sees its parents, whether in this row or kept of one before, and
// itself. For layers of attention; what else carries something from token to token knows no pieces.
struct PackedPieces {
  const std::vector<Piece>& all;
  int first = 0, count = 0;      // the row's pieces: all[first … first + count)
  at::Tensor positions;          // [tokens] int64, where the row is
  int64_t longest = 0;           // tokens of the longest sequence of all
  PieceCache* cache = nullptr;
};

// Of every token of these pieces; [tokens] int64 on the CPU.
at::Tensor positions_of(const std::vector<Piece>& all, int first, int count);

}  // namespace qb
