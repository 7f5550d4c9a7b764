#include <ATen/Parallel.h>
#include <c10/util/Half.h>
#include <fmt/format.h>

#include <cstring>

#include "core/base/error.h"
#include "core/format/ggml_blocks.h"
#include "core/format/gguf.h"
#include "core/format/iq4_nl.h"
#include "core/format/mxfp4.h"

namespace qb {
namespace {

using namespace ggml;

float real(Half bits) { return static_cast<float>(c10::Half(bits, c10::Half::from_bits())); }

// Two nibbles a byte: the low ones are values 0…15 of the block, the high ones 16…31.
void decode(const Q4_0& b, float* y) {
  const float d = real(b.d);
  for (int j = 0; j < 16; ++j) {
    y[j] = static_cast<float>((b.qs[j] & 15) - 8) * d;
    y[j + 16] = static_cast<float>((b.qs[j] >> 4) - 8) * d;
  }
}

void decode(const Q4_1& b, float* y) {
  const float d = real(b.d), m = real(b.m);
  for (int j = 0; j < 16; ++j) {
    y[j] = static_cast<float>(b.qs[j] & 15) * d + m;
    y[j + 16] = static_cast<float>(b.qs[j] >> 4) * d + m;
  }
}

uint32_t fifth_bits(const uint8_t (&qh)[4]) {
  uint32_t bits;
  std::memcpy(&bits, qh, 4);
  return bits;
}

// The fifth bit of value i is bit i of qh.
void decode(const Q5_0& b, float* y) {
  const float d = real(b.d);
  const uint32_t high = fifth_bits(b.qh);
  for (int j = 0; j < 16; ++j) {
    y[j] = static_cast<float>(static_cast<int>((b.qs[j] & 15) | ((high >> j & 1) << 4)) - 16) * d;
    y[j + 16] = static_cast<float>(static_cast<int>((b.qs[j] >> 4) | ((high >> (j + 16) & 1) << 4)) - 16) * d;
  }
}

void decode(const Q5_1& b, float* y) {
  const float d = real(b.d), m = real(b.m);
  const uint32_t high = fifth_bits(b.qh);
  for (int j = 0; j < 16; ++j) {
    y[j] = static_cast<float>((b.qs[j] & 15) | ((high >> j & 1) << 4)) * d + m;
    y[j + 16] = static_cast<float>((b.qs[j] >> 4) | ((high >> (j + 16) & 1) << 4)) * d + m;
  }
}

void decode(const Q8_0& b, float* y) {
  const float d = real(b.d);
  for (int j = 0; j < 32; ++j) y[j] = static_cast<float>(b.qs[j]) * d;
}

// Low nibbles are values 0…15 as in Q4_0.
void decode(const MXFP4& b, float* y) {
  const float scale = half_power_of_two(b.e);
  for (int j = 0; j < 16; ++j) {
    y[j] = kTwiceFp4[b.qs[j] & 15] * scale;
    y[j + 16] = kTwiceFp4[b.qs[j] >> 4] * scale;
  }
}

void decode(const IQ4_NL& b, float* y) {
  const float d = real(b.d);
  for (int j = 0; j < 16; ++j) {
    y[j] = d * static_cast<float>(kIq4Levels[b.qs[j] & 15]);
    y[j + 16] = d * static_cast<float>(kIq4Levels[b.qs[j] >> 4]);
  }
}

// Eight sub-blocks of 32, each laid out as IQ4_NL's; of its 6-bit scale the low nibble and the two high bits lie apart.
void decode(const IQ4_XS& b, float* y) {
  const float d = real(b.d);
  for (int sub = 0; sub < 8; ++sub) {
    const int low = b.scales_l[sub / 2] >> (4 * (sub % 2)) & 15, high = b.scales_h >> (2 * sub) & 3;
    const float step = d * static_cast<float>((low | high << 4) - 32);
    for (int j = 0; j < 16; ++j, ++y) {
      y[0] = step * static_cast<float>(kIq4Levels[b.qs[sub * 16 + j] & 15]);
      y[16] = step * static_cast<float>(kIq4Levels[b.qs[sub * 16 + j] >> 4]);
    }
    y += 16;
  }
}

// A byte is a fraction of 256 whose leading base-3 digits are the values + 1: digit k of each byte of a run, run after run.
void decode(const TQ1_0& b, float* y) {
  const float d = real(b.d);
  const auto run = [&](const uint8_t* bytes, int count, int digits) {
    for (int k = 0, power = 1; k < digits; ++k, power *= 3)
      for (int j = 0; j < count; ++j) *y++ = d * static_cast<float>((static_cast<uint8_t>(bytes[j] * power) * 3 >> 8) - 1);
  };
  run(b.qs, 32, 5);
  run(b.qs + 32, 16, 5);
  run(b.qh, 4, 4);
}

void decode(const TQ2_0& b, float* y) {
  const float d = real(b.d);
  for (int half = 0; half < 2; ++half)
    for (int pair = 0; pair < 4; ++pair)
      for (int j = 0; j < 32; ++j) *y++ = d * static_cast<float>((b.qs[half * 32 + j] >> (2 * pair) & 3) - 1);
}

// Sixteen sub-blocks of 16; a byte of `scales` holds a 4-bit scale (low) and a 4-bit minimum (high).
void decode(const Q2_K& b, float* y) {
  const float d = real(b.d), dmin = real(b.dmin);
  for (int half = 0; half < 2; ++half)
    for (int pair = 0; pair < 4; ++pair)
      for (int side = 0; side < 2; ++side) {
        const uint8_t scale = b.scales[half * 8 + pair * 2 + side];
        const float step = d * static_cast<float>(scale & 15), low = dmin * static_cast<float>(scale >> 4);
        for (int l = 0; l < 16; ++l) *y++ = step * static_cast<float>((b.qs[half * 32 + side * 16 + l] >> (2 * pair)) & 3) - low;
      }
}

// Sixteen 6-bit scales in 12 bytes: low nibbles in bytes 0…7, the upper two bits in bytes 8…11.
int scale_of_q3(const uint8_t (&s)[12], int j) {
  const int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
  const int high = (s[8 + j % 4] >> (2 * (j / 4))) & 3;
  return (low | high << 4) - 32;
}

void decode(const Q3_K& b, float* y) {
  const float d = real(b.d);
  for (int half = 0; half < 2; ++half)
    for (int pair = 0; pair < 4; ++pair)
      for (int side = 0; side < 2; ++side) {
        const float step = d * static_cast<float>(scale_of_q3(b.scales, half * 8 + pair * 2 + side));
        for (int l = 0; l < 16; ++l) {
          const int at = side * 16 + l;
          const int low = (b.qs[half * 32 + at] >> (2 * pair)) & 3;
          const bool high = b.hmask[at] >> (half * 4 + pair) & 1;
          *y++ = step * static_cast<float>(high ? low : low - 4);
        }
      }
}

// Eight 6-bit scales and minima in 12 bytes, shared by Q4_K and Q5_K.
void scale_min_of_k4(const uint8_t (&s)[12], int j, int& scale, int& minimum) {
  if (j < 4) {
    scale = s[j] & 63;
    minimum = s[j + 4] & 63;
  } else {
    scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
    minimum = (s[j + 4] >> 4) | (s[j] >> 6) << 4;
  }
}

template <class B, class High>
void decode_k45(const B& b, float* y, High high) {
  const float d = real(b.d), dmin = real(b.dmin);
  for (int sub = 0; sub < 8; ++sub) {
    int scale = 0, minimum = 0;
    scale_min_of_k4(b.scales, sub, scale, minimum);
    const float step = d * static_cast<float>(scale), low = dmin * static_cast<float>(minimum);
    for (int l = 0; l < 32; ++l) {
      const int nibble = (b.qs[sub / 2 * 32 + l] >> (4 * (sub % 2))) & 15;
      *y++ = step * static_cast<float>(nibble + high(sub, l)) - low;
    }
  }
}

void decode(const Q4_K& b, float* y) {
  decode_k45(b, y, [](int, int) { return 0; });
}
void decode(const Q5_K& b, float* y) {
  decode_k45(b, y, [&](int sub, int l) { return (b.qh[l] >> sub & 1) << 4; });
}

void decode(const Q6_K& b, float* y) {
  const float d = real(b.d);
  for (int half = 0; half < 2; ++half)
    for (int quarter = 0; quarter < 4; ++quarter)
      for (int l = 0; l < 32; ++l) {
        const int low = (b.ql[half * 64 + (quarter % 2) * 32 + l] >> (4 * (quarter / 2))) & 15;
        const int high = (b.qh[half * 32 + l] >> (2 * quarter)) & 3;
        const int scale = b.scales[half * 8 + quarter * 2 + l / 16];
        *y++ = d * static_cast<float>(scale) * static_cast<float>((low | high << 4) - 32);
      }
}

template <class Block>
void decode_all(std::span<const std::byte> bytes, float* out, int64_t elements, int64_t per_block) {
  at::parallel_for(0, elements / per_block, 4096 / per_block * 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Block block;  // a copy, since blocks lie unaligned
      std::memcpy(&block, bytes.data() + static_cast<size_t>(i) * sizeof(Block), sizeof(Block));
      decode(block, out + i * per_block);
    }
  });
}

}  // namespace

void dequantize_ggml(DType dtype, std::span<const std::byte> bytes, float* out, int64_t elements) {
  const int64_t per_block = block_elements(dtype);
  if (elements % per_block != 0 || static_cast<int64_t>(bytes.size()) != elements / per_block * block_bytes(dtype))
    throw InternalError(fmt::format("{} bytes are not {} values of {}", bytes.size(), elements, name_of(dtype)));
  switch (dtype) {
    case DType::q4_0: return decode_all<Q4_0>(bytes, out, elements, per_block);
    case DType::q4_1: return decode_all<Q4_1>(bytes, out, elements, per_block);
    case DType::q5_0: return decode_all<Q5_0>(bytes, out, elements, per_block);
    case DType::q5_1: return decode_all<Q5_1>(bytes, out, elements, per_block);
    case DType::q8_0: return decode_all<Q8_0>(bytes, out, elements, per_block);
    case DType::q2_k: return decode_all<Q2_K>(bytes, out, elements, per_block);
    case DType::q3_k: return decode_all<Q3_K>(bytes, out, elements, per_block);
    case DType::q4_k: return decode_all<Q4_K>(bytes, out, elements, per_block);
    case DType::q5_k: return decode_all<Q5_K>(bytes, out, elements, per_block);
    case DType::mxfp4: return decode_all<MXFP4>(bytes, out, elements, per_block);
    case DType::iq4_nl: return decode_all<IQ4_NL>(bytes, out, elements, per_block);
    case DType::iq4_xs: return decode_all<IQ4_XS>(bytes, out, elements, per_block);
    case DType::tq1_0: return decode_all<TQ1_0>(bytes, out, elements, per_block);
    case DType::tq2_0: return decode_all<TQ2_0>(bytes, out, elements, per_block);
    case DType::q6_k: return decode_all<Q6_K>(bytes, out, elements, per_block);
    default: throw InternalError(fmt::format("{} is not a ggml block format", name_of(dtype)));
  }
}

}  // namespace qb
