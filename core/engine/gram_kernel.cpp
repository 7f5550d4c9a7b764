#include "core/engine/gram_kernel.h"

#include <algorithm>

#include "core/base/cpu.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define QB_AVX512_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))
#define QB_BF16_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#define QB_AMX_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,amx-tile,amx-bf16")))

namespace qb {
namespace {

// The forms with a mask: GCC 12 takes those without for reads of what is not initialised.
constexpr __mmask16 kAll = 0xffff;
QB_AVX512_TARGET inline __m512i widen(__m256i v) { return _mm512_maskz_cvtepu16_epi32(kAll, v); }
QB_AVX512_TARGET inline __mmask16 first_of(int64_t count) { return static_cast<__mmask16>((1u << std::clamp<int64_t>(count, 0, 16)) - 1); }

// Token pairs as words, [pair][columns of a panel]: the even token in the lower half.
QB_AVX512_TARGET inline void pack_pairs(const uint16_t* x, int64_t stride, int64_t tokens, int64_t left, int64_t pairs, int64_t columns, uint32_t* out) {
  for (int64_t pair = 0; pair < pairs; ++pair, out += columns) {
    const uint16_t *even = x + 2 * pair * stride, *odd = even + stride;
    const bool has_even = 2 * pair < tokens, has_odd = 2 * pair + 1 < tokens;
    for (int64_t c = 0; c < columns; c += 16) {
      const __mmask16 mask = first_of(left - c);
      const __m512i low = has_even ? widen(_mm256_maskz_loadu_epi16(mask, even + c)) : _mm512_setzero_si512();
      const __m512i high = has_odd ? widen(_mm256_maskz_loadu_epi16(mask, odd + c)) : _mm512_setzero_si512();
      _mm512_storeu_si512(out + c, _mm512_or_si512(low, _mm512_maskz_slli_epi32(kAll, high, 16)));
    }
  }
}

// 16 sums into a row of the matrix, as far as it has columns.
QB_AVX512_TARGET inline void add_to_row(float* row, int64_t left, __m512 sums) {
  const __mmask16 mask = first_of(left);
  _mm512_mask_storeu_ps(row, mask, _mm512_add_ps(_mm512_maskz_loadu_ps(mask, row), sums));
}

constexpr int kRows = 8, kVectors = 3;  // of the tile that stays in registers: 24 sums, 3 columns, 1 row
constexpr int64_t kColumns = kVectors * 16;
static_assert(kColumns % kRows == 0);

// The sums of a tile are added where they will be read only after all its products.
QB_AVX512_TARGET inline void await_rows(const float* gram, int64_t in, int64_t rows) {
  for (int64_t r = 0; r < std::min<int64_t>(rows, kRows); ++r)
    for (int v = 0; v < kVectors; ++v) __builtin_prefetch(gram + r * in + 16 * v, 1);
}

QB_AVX512_TARGET inline void add_sums(const __m512 (&sum)[kRows][kVectors], int64_t rows, int64_t columns, int64_t in, float* gram) {
  for (int r = 0; r < kRows && r < rows; ++r)
    for (int v = 0; v < kVectors; ++v) add_to_row(gram + r * in + 16 * v, columns - 16 * v, sum[r][v]);
}

// Numbers widened to float32: two fused products a cycle on Intel's processors, whose bfloat16 instruction has half the rate.
namespace avx512 {

constexpr int64_t kTokens = 256, kWords = kColumns * kTokens;

QB_AVX512_TARGET inline __m512i load(__mmask16 mask, const uint16_t* x) { return _mm512_maskz_slli_epi32(kAll, widen(_mm256_maskz_loadu_epi16(mask, x)), 16); }
QB_AVX512_TARGET inline __m512i load(__mmask16 mask, const float* x) { return _mm512_castps_si512(_mm512_maskz_loadu_ps(mask, x)); }

template <class Number>
QB_AVX512_TARGET void pack(const Number* x, int64_t stride, int64_t tokens, int64_t in, uint32_t* packed) {
  for (int64_t first = 0; first < in; first += kColumns)
    for (int64_t t = 0; t < kTokens; ++t, packed += kColumns)
      for (int64_t c = 0; c < kColumns; c += 16)
        _mm512_storeu_si512(packed + c, load(first_of(t < tokens ? in - first - c : 0), x + std::min(t, tokens - 1) * stride + first + c));
}

QB_AVX512_TARGET void add(const uint32_t* packed, int64_t first, int64_t last, int64_t column_panel, int64_t in, float* gram) {
  const auto* values = reinterpret_cast<const float*>(packed);
  const int64_t column0 = column_panel * kColumns;
  for (int64_t row = first * kColumns; row < std::min(last * kColumns, in); row += kRows) {
    float* tile = gram + row * in + column0;
    await_rows(tile, in, in - row);
    __m512 sum[kRows][kVectors];
    for (auto& line : sum)
      for (auto& s : line) s = _mm512_setzero_ps();
    const float *a = values + row / kColumns * kWords + row % kColumns, *b = values + column_panel * kWords;
    for (int64_t t = 0; t < kTokens; ++t, a += kColumns, b += kColumns) {
      _mm_prefetch(reinterpret_cast<const char*>(a + 12 * kColumns), _MM_HINT_T0);  // a part of every line only, which processors do not foresee
      const __m512 b0 = _mm512_loadu_ps(b), b1 = _mm512_loadu_ps(b + 16), b2 = _mm512_loadu_ps(b + 32);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const __m512 one = _mm512_set1_ps(a[r]);
        sum[r][0] = _mm512_fmadd_ps(one, b0, sum[r][0]);
        sum[r][1] = _mm512_fmadd_ps(one, b1, sum[r][1]);
        sum[r][2] = _mm512_fmadd_ps(one, b2, sum[r][2]);
      }
    }
    add_sums(sum, in - row, in - column0, in, tile);
  }
}

}  // namespace avx512

namespace bf16 {

constexpr int64_t kTokens = 256, kPairs = kTokens / 2, kWords = kColumns * kPairs;

QB_BF16_TARGET inline __m512bh bits(__m512i v) { return reinterpret_cast<__m512bh>(v); }

QB_BF16_TARGET void pack(const uint16_t* x, int64_t stride, int64_t tokens, int64_t in, uint32_t* packed) {
  for (int64_t first = 0; first < in; first += kColumns, packed += kWords) pack_pairs(x + first, stride, tokens, in - first, kPairs, kColumns, packed);
}

QB_BF16_TARGET void add(const uint32_t* packed, int64_t first, int64_t last, int64_t column_panel, int64_t in, float* gram) {
  const uint32_t* right = packed + column_panel * kWords;
  const int64_t column0 = column_panel * kColumns;
  for (int64_t row = first * kColumns; row < std::min(last * kColumns, in); row += kRows) {
    float* tile = gram + row * in + column0;
    await_rows(tile, in, in - row);
    __m512 sum[kRows][kVectors];
    for (auto& line : sum)
      for (auto& s : line) s = _mm512_setzero_ps();
    const uint32_t *a = packed + row / kColumns * kWords + row % kColumns, *b = right;
    for (int64_t pair = 0; pair < kPairs; ++pair, a += kColumns, b += kColumns) {
      const __m512bh b0 = bits(_mm512_loadu_si512(b)), b1 = bits(_mm512_loadu_si512(b + 16)), b2 = bits(_mm512_loadu_si512(b + 32));
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const __m512bh one = bits(_mm512_set1_epi32(static_cast<int>(a[r])));
        sum[r][0] = _mm512_dpbf16_ps(sum[r][0], one, b0);
        sum[r][1] = _mm512_dpbf16_ps(sum[r][1], one, b1);
        sum[r][2] = _mm512_dpbf16_ps(sum[r][2], one, b2);
      }
    }
    add_sums(sum, in - row, in - column0, in, tile);
  }
}

}  // namespace bf16

namespace amx {

// A panel is held twice: as pairs of tokens by columns, the right operand, and turned, the left one: tile after tile of 16
// columns by 16 pairs, those of the panel's first half before those of its second.
constexpr int64_t kColumns = 32, kTokens = 512, kPairs = kTokens / 2, kHalf = kColumns * kPairs, kWords = 2 * kHalf;
constexpr int64_t kTilePairs = 16, kTileWords = 16 * kTilePairs;

QB_AMX_TARGET void pack(const uint16_t* x, int64_t stride, int64_t tokens, int64_t in, uint32_t* packed) {
  for (int64_t first = 0; first < in; first += kColumns, packed += kWords) {
    pack_pairs(x + first, stride, tokens, in - first, kPairs, kColumns, packed);
    uint32_t* turned = packed + kHalf;
    for (int64_t half = 0; half < kColumns; half += 16)
      for (int64_t p = 0; p < kPairs; p += kTilePairs, turned += kTileWords)
        for (int64_t c = 0; c < 16; ++c)
          for (int64_t i = 0; i < kTilePairs; ++i) turned[c * kTilePairs + i] = packed[(p + i) * kColumns + half + c];
  }
}

struct alignas(64) TileConfiguration {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfiguration) == 64);

// 32 × 32 sums in four tiles, from two tiles of each operand at a time.
QB_AMX_TARGET void add(const uint32_t* packed, int64_t first, int64_t last, int64_t column_panel, int64_t in, float* gram) {
  const TileConfiguration configuration;
  _tile_loadconfig(&configuration);
  const uint32_t* right = packed + column_panel * kWords;
  const int64_t column0 = column_panel * kColumns;
  alignas(64) float sums[32][32];
  for (int64_t panel = first; panel < last; ++panel) {
    const uint32_t *a = packed + panel * kWords + kHalf, *b = right;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t pair = 0; pair < kPairs; pair += kTilePairs, a += kTileWords, b += kTilePairs * kColumns) {
      _tile_loadd(4, a, kTilePairs * 4);
      _tile_loadd(5, a + kHalf / 2, kTilePairs * 4);
      _tile_loadd(6, b, kColumns * 4);
      _tile_loadd(7, b + 16, kColumns * 4);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, &sums[0][0], sizeof sums[0]);
    _tile_stored(1, &sums[0][16], sizeof sums[0]);
    _tile_stored(2, &sums[16][0], sizeof sums[0]);
    _tile_stored(3, &sums[16][16], sizeof sums[0]);
    const int64_t row0 = panel * kColumns;
    for (int64_t r = 0; r < kColumns && row0 + r < in; ++r)
      for (int64_t c = 0; c < kColumns; c += 16) add_to_row(gram + (row0 + r) * in + column0 + c, in - column0 - c, _mm512_load_ps(&sums[r][c]));
  }
  _tile_release();
}

}  // namespace amx
}  // namespace

const std::vector<GramKernel>& gram_kernels() {
  static const std::vector<GramKernel> kernels = [] {
    std::vector<GramKernel> found;
    if (cpu_has_bfloat16_tiles()) found.push_back({"AMX", amx::kColumns, amx::kTokens, amx::kWords, amx::pack, amx::add});
    if (cpu_multiplies_bfloat16()) found.push_back({"AVX512-BF16", kColumns, bf16::kTokens, bf16::kWords, bf16::pack, bf16::add});
    if (cpu_has_avx512()) found.push_back({"AVX512", kColumns, avx512::kTokens, avx512::kWords, avx512::pack<uint16_t>, avx512::add, avx512::pack<float>});
    if (float32_products_are_faster() && found.size() > 1 && !cpu_has_bfloat16_tiles()) std::swap(found.front(), found.back());
    return found;
  }();
  return kernels;
}

}  // namespace qb
#else
namespace qb {
const std::vector<GramKernel>& gram_kernels() {
  static const std::vector<GramKernel> none;
  return none;
}
}  // namespace qb
#endif

namespace qb {

const GramKernel* float_gram_kernel() {
  for (const GramKernel& kernel : gram_kernels())
    if (kernel.pack_float) return &kernel;
  return nullptr;
}

}  // namespace qb
