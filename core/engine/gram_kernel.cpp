#include "core/engine/gram_kernel.h"

#include <algorithm>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define QB_BF16_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

namespace qb {
namespace {

constexpr int kRows = 8, kVectors = 3;  // of the tile that stays in registers: 24 sums, 3 columns, 1 row
constexpr int64_t kPairs = kGramTokens / 2;
static_assert(kGramPanel == kVectors * 16 && kGramPanel % kRows == 0);

QB_BF16_TARGET inline __m512bh bits(__m512i v) { return reinterpret_cast<__m512bh>(v); }

// The forms with a mask: GCC 12 takes those without for reads of what is not initialised.
constexpr __mmask16 kAll = 0xffff;
QB_BF16_TARGET inline __m512i widen(__m256i v) { return _mm512_maskz_cvtepu16_epi32(kAll, v); }

}  // namespace

QB_BF16_TARGET
void pack_gram_block(const uint16_t* x, int64_t stride, int64_t tokens, int64_t in, uint32_t* packed) {
  for (int64_t panel = 0; panel < gram_panels(in); ++panel) {
    const int64_t first = panel * kGramPanel, columns = std::min(kGramPanel, in - first);
    uint32_t* out = packed + panel * kGramPanel * kPairs;
    for (int64_t pair = 0; pair < kPairs; ++pair, out += kGramPanel) {
      const uint16_t *even = x + 2 * pair * stride + first, *odd = even + stride;
      const bool has_even = 2 * pair < tokens, has_odd = 2 * pair + 1 < tokens;
      for (int v = 0; v < kVectors; ++v) {
        const int64_t left = std::clamp<int64_t>(columns - 16 * v, 0, 16);
        const auto mask = static_cast<__mmask16>((1u << left) - 1);
        const __m512i low = has_even ? widen(_mm256_maskz_loadu_epi16(mask, even + 16 * v)) : _mm512_setzero_si512();
        const __m512i high = has_odd ? widen(_mm256_maskz_loadu_epi16(mask, odd + 16 * v)) : _mm512_setzero_si512();
        _mm512_storeu_si512(out + 16 * v, _mm512_or_si512(low, _mm512_maskz_slli_epi32(kAll, high, 16)));
      }
    }
  }
}

QB_BF16_TARGET
void add_gram_tile(const uint32_t* packed, int64_t row_panel, int64_t column_panel, int64_t in, float* gram) {
  const uint32_t *left = packed + row_panel * kGramPanel * kPairs, *right = packed + column_panel * kGramPanel * kPairs;
  const int64_t row0 = row_panel * kGramPanel, column0 = column_panel * kGramPanel;
  for (int64_t row = 0; row < kGramPanel && row0 + row < in; row += kRows) {
    __m512 sum[kRows][kVectors];
    for (auto& line : sum)
      for (auto& s : line) s = _mm512_setzero_ps();
    const uint32_t *a = left + row, *b = right;
    for (int64_t pair = 0; pair < kPairs; ++pair, a += kGramPanel, b += kGramPanel) {
      const __m512bh b0 = bits(_mm512_loadu_si512(b)), b1 = bits(_mm512_loadu_si512(b + 16)), b2 = bits(_mm512_loadu_si512(b + 32));
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const __m512bh one = bits(_mm512_set1_epi32(static_cast<int>(a[r])));
        sum[r][0] = _mm512_dpbf16_ps(sum[r][0], one, b0);
        sum[r][1] = _mm512_dpbf16_ps(sum[r][1], one, b1);
        sum[r][2] = _mm512_dpbf16_ps(sum[r][2], one, b2);
      }
    }
    for (int r = 0; r < kRows && row0 + row + r < in; ++r)
      for (int v = 0; v < kVectors; ++v) {
        const int64_t rest = std::clamp<int64_t>(in - column0 - 16 * v, 0, 16);
        const auto mask = static_cast<__mmask16>((1u << rest) - 1);
        float* to = gram + (row0 + row + r) * in + column0 + 16 * v;
        _mm512_mask_storeu_ps(to, mask, _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), sum[r][v]));
      }
  }
}

}  // namespace qb
#else
namespace qb {
void pack_gram_block(const uint16_t*, int64_t, int64_t, int64_t, uint32_t*) {}
void add_gram_tile(const uint32_t*, int64_t, int64_t, int64_t, float*) {}
}  // namespace qb
#endif
