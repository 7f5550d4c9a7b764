#pragma once
#include <cstdint>
#include <vector>

namespace qb {

// Gram products of bfloat16 inputs in vectors, exact ones, and for some kernels of float32 inputs; sums in float32, in an order that does
// not depend on the number of threads. Inputs are packed first: a block of tokens becomes panels of columns.
struct GramKernel {
  const char* name;
  int64_t columns;      // of a panel
  int64_t tokens;       // of a block, at most
  int64_t panel_words;  // of 32 bits, that a packed panel takes

  // x: [tokens, in] with `stride` elements from token to token; what is missing of a block is filled with zeros.
  void (*pack)(const uint16_t* x, int64_t stride, int64_t tokens, int64_t in, uint32_t* packed);
  // gram [in, in] += packedᵀ·packed, for the rows of the panels first … last − 1 and the columns of one panel.
  void (*add)(const uint32_t* packed, int64_t first, int64_t last, int64_t column_panel, int64_t in, float* gram);

  void (*pack_float)(const float* x, int64_t stride, int64_t tokens, int64_t in, uint32_t* packed) = nullptr;  // nullptr: for bfloat16 only

  int64_t panels(int64_t in) const { return (in + columns - 1) / columns; }
};

// Those that this processor can run, the fastest first: AMX, AVX512-BF16 and AVX512 (in either order), or none.
const std::vector<GramKernel>& gram_kernels();
// The one for float32 inputs; nullptr: none.
const GramKernel* float_gram_kernel();

}  // namespace qb
