#pragma once
#include <ATen/ATen.h>

namespace qb {

struct PackedPieces;

struct AttentionSpec {
  double scale = 1;        // of q·k
  double softcap = 0;      // tanh(s / cap) · cap before the mask; 0: none
  int64_t window = 0;      // keys a query sees, itself included; 0: all before it
  int64_t chunk = 0;       // only keys of the query's own chunk of so many tokens are seen; 0: no chunks
  at::Tensor sinks;        // [heads]: a score of its own in each softmax, whose share goes nowhere; undefined: none
  at::Tensor alibi;        // [heads] float32 slopes: adds slope · key position to the scaled score; undefined: none
  bool round_alibi = false;  // Falcon rounds slope and bias to bfloat16 and divides by sqrt(head_dim), see alibi_slopes
};

// Causal attention. q: [batch, seq, heads, dim], k and v: [batch, keys, kv_heads, dim (v: its own)], views are fine; where there
// are more keys than queries, the queries are the last positions. Returns [batch, seq, heads · v's dim], contiguous. Query head h reads key/value head h / (heads / kv_heads).
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionSpec& spec);

// The same for a row of pieces: q, k, v [1, tokens, …] of the row, each piece attending to its parents and itself.
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionSpec& spec, const PackedPieces& pieces);

// Slopes of "Train Short, Test Long" (arXiv 2108.12409), also for head counts that are no powers of two. [heads] float32.
at::Tensor alibi_slopes(int64_t heads);

}  // namespace qb
