#pragma once
#include <cstdint>

namespace qb {

// Gram products of bfloat16 inputs on processors that have cpu_multiplies_bfloat16(): products are exact, sums in float32.
// Inputs are packed first: a block of kGramTokens tokens becomes panels of kGramPanel columns, in each the tokens by pairs.
constexpr int64_t kGramPanel = 48;
constexpr int64_t kGramTokens = 256;

inline int64_t gram_panels(int64_t in) { return (in + kGramPanel - 1) / kGramPanel; }
// Words of 32 bits that a packed block takes.
inline int64_t gram_block_words(int64_t in) { return gram_panels(in) * kGramPanel * (kGramTokens / 2); }

// x: [tokens, in] with `stride` elements from token to token, tokens <= kGramTokens; what is missing is filled with zeros.
void pack_gram_block(const uint16_t* x, int64_t stride, int64_t tokens, int64_t in, uint32_t* packed);

// gram [in, in] += packedᵀ·packed for one pair of panels, rows of the first, columns of the second.
void add_gram_tile(const uint32_t* packed, int64_t row_panel, int64_t column_panel, int64_t in, float* gram);

}  // namespace qb
