#pragma once
#include <ATen/ATen.h>

#include "core/model/architecture.h"

namespace qb {

// cos and sin of every position's angles, [seq, dim / 2] float32, times the rope's attention factor.
struct RotaryTable {
  at::Tensor cos, sin;
};

// What multiplies the position in each pair's angle, [dim / 2], and cos and sin, for sequences of this length.
std::vector<double> rotary_frequencies(const RopeSpec& rope, int64_t seq_len);
double rotary_magnitude(const RopeSpec& rope, int64_t seq_len);

// Frequencies depend on the sequence's length for the dynamic and longrope kinds.
RotaryTable rotary_table(const RopeSpec& rope, int64_t seq_len, at::Device device);

// Rotates the first dim = 2·(columns of table) dimensions of each head, in x's memory unless a gradient flows: pairs
// (i, i + dim/2), or (2i, 2i + 1) where they are interleaved; the table's row is x's row % seq.
// x: [tokens, heads, head_dim], may be a strided view.
at::Tensor apply_rotary(at::Tensor x, const RotaryTable& table, int64_t seq_len, bool interleaved = false);

}  // namespace qb
