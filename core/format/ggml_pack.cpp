#include "core/format/ggml_pack.h"

#include <ATen/Parallel.h>
#include <c10/util/Half.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <bit>
#include <cstring>
#include <limits>

#include "core/base/error.h"
#include "core/format/ggml_blocks.h"

namespace qb {
namespace {

using namespace ggml;

// One block's parts in plain memory.
struct View {
  int8_t* codes;
  float *d, *m;
  int8_t *scales, *mins;
};

float real(Half bits) { return static_cast<float>(c10::Half(bits, c10::Half::from_bits())); }
Half half_bits(float value) { return c10::Half(value).x; }

// --- Nibbles: values 0…15 of the block low, 16…31 high; a fifth bit of value i is bit i of qh.

template <class B>
void pack_nibbles(B& b, const int8_t* q, int offset) {
  for (int j = 0; j < 16; ++j) b.qs[j] = static_cast<uint8_t>(((q[j] + offset) & 15) | ((q[j + 16] + offset) & 15) << 4);
}
template <class B>
void unpack_nibbles(const B& b, int8_t* q, int offset) {
  for (int j = 0; j < 16; ++j) {
    q[j] = static_cast<int8_t>((b.qs[j] & 15) - offset);
    q[j + 16] = static_cast<int8_t>((b.qs[j] >> 4) - offset);
  }
}
template <class B>
void pack_fifth_bits(B& b, const int8_t* q, int offset) {
  uint32_t bits = 0;
  for (int j = 0; j < 32; ++j) bits |= static_cast<uint32_t>((q[j] + offset) >> 4 & 1) << j;
  std::memcpy(b.qh, &bits, 4);
}
template <class B>
void unpack_five_bits(const B& b, int8_t* q, int offset) {
  uint32_t bits;
  std::memcpy(&bits, b.qh, 4);
  for (int j = 0; j < 16; ++j) {
    q[j] = static_cast<int8_t>(static_cast<int>((b.qs[j] & 15) | (bits >> j & 1) << 4) - offset);
    q[j + 16] = static_cast<int8_t>(static_cast<int>((b.qs[j] >> 4) | (bits >> (j + 16) & 1) << 4) - offset);
  }
}

void pack(Q4_0& b, const View& v) { b.d = half_bits(*v.d), pack_nibbles(b, v.codes, 8); }
void unpack(const Q4_0& b, const View& v) { *v.d = real(b.d), unpack_nibbles(b, v.codes, 8); }
void pack(Q4_1& b, const View& v) { b.d = half_bits(*v.d), b.m = half_bits(*v.m), pack_nibbles(b, v.codes, 0); }
void unpack(const Q4_1& b, const View& v) { *v.d = real(b.d), *v.m = real(b.m), unpack_nibbles(b, v.codes, 0); }
void pack(Q5_0& b, const View& v) { b.d = half_bits(*v.d), pack_nibbles(b, v.codes, 16), pack_fifth_bits(b, v.codes, 16); }
void unpack(const Q5_0& b, const View& v) { *v.d = real(b.d), unpack_five_bits(b, v.codes, 16); }
void pack(Q5_1& b, const View& v) { b.d = half_bits(*v.d), b.m = half_bits(*v.m), pack_nibbles(b, v.codes, 0), pack_fifth_bits(b, v.codes, 0); }
void unpack(const Q5_1& b, const View& v) { *v.d = real(b.d), *v.m = real(b.m), unpack_five_bits(b, v.codes, 0); }
void pack(Q8_0& b, const View& v) { b.d = half_bits(*v.d), std::memcpy(b.qs, v.codes, 32); }
void unpack(const Q8_0& b, const View& v) { *v.d = real(b.d), std::memcpy(v.codes, b.qs, 32); }
void pack(IQ4_NL& b, const View& v) { b.d = half_bits(*v.d), pack_nibbles(b, v.codes, 0); }
void unpack(const IQ4_NL& b, const View& v) { *v.d = real(b.d), unpack_nibbles(b, v.codes, 0); }

// E8M0: e stands for 2^(e − 127), 255 for no number.
uint8_t exponent(float power) {
  const auto bits = std::bit_cast<uint32_t>(power);
  return bits == 0x400000 ? 0 : static_cast<uint8_t>(bits >> 23);  // 2^−127 is subnormal
}
float power(uint8_t e) { return std::bit_cast<float>(e == 0 ? 0x400000u : static_cast<uint32_t>(e) << 23); }
void pack(MXFP4& b, const View& v) { b.e = exponent(*v.d), pack_nibbles(b, v.codes, 0); }
void unpack(const MXFP4& b, const View& v) { *v.d = power(b.e), unpack_nibbles(b, v.codes, 0); }

// --- Super-blocks

// Where value l of 16 of sub-block s lies among bytes of four 2-bit values: 128 values in 32 bytes, 32 of them a bit pair.
constexpr int place_of_pair(int s, int l) { return s / 8 * 32 + s % 2 * 16 + l; }
constexpr int shift_of_pair(int s) { return s % 8 / 2 * 2; }

void pack(Q2_K& b, const View& v) {
  b.d = half_bits(*v.d), b.dmin = half_bits(*v.m);
  for (int half = 0; half < 2; ++half)
    for (int at = 0; at < 32; ++at) {
      const int8_t* q = v.codes + half * 128 + at;
      b.qs[half * 32 + at] = static_cast<uint8_t>(q[0] | q[32] << 2 | q[64] << 4 | q[96] << 6);
    }
  for (int s = 0; s < 16; ++s) b.scales[s] = static_cast<uint8_t>(v.scales[s] | v.mins[s] << 4);
}
void unpack(const Q2_K& b, const View& v) {
  *v.d = real(b.d), *v.m = real(b.dmin);
  for (int s = 0; s < 16; ++s) {
    v.scales[s] = static_cast<int8_t>(b.scales[s] & 15);
    v.mins[s] = static_cast<int8_t>(b.scales[s] >> 4);
    for (int l = 0; l < 16; ++l) v.codes[s * 16 + l] = static_cast<int8_t>(b.qs[place_of_pair(s, l)] >> shift_of_pair(s) & 3);
  }
}

// Code + 4 in three bits: two in qs, the third in hmask, bit `s / 2` of byte s % 2 · 16 + l. Scale + 32 in six: four in a
// nibble of bytes 0…7, two in bytes 8…11.
void pack(Q3_K& b, const View& v) {
  b.d = half_bits(*v.d);
  for (int at = 0; at < 32; ++at) {
    unsigned high = 0;
    for (int half = 0; half < 2; ++half) {
      const int8_t* q = v.codes + half * 128 + at;
      unsigned low = 0;
      for (int pair = 0; pair < 4; ++pair) {
        const auto code = static_cast<unsigned>(q[pair * 32] + 4);
        low |= (code & 3) << (2 * pair);
        high |= code >> 2 << (half * 4 + pair);
      }
      b.qs[half * 32 + at] = static_cast<uint8_t>(low);
    }
    b.hmask[at] = static_cast<uint8_t>(high);
  }
  const auto scale = [&](int j) { return static_cast<unsigned>(v.scales[j] + 32); };
  for (int j = 0; j < 8; ++j) b.scales[j] = static_cast<uint8_t>((scale(j) & 15) | (scale(j + 8) & 15) << 4);
  for (int j = 0; j < 4; ++j) b.scales[8 + j] = static_cast<uint8_t>(scale(j) >> 4 | scale(j + 4) >> 4 << 2 | scale(j + 8) >> 4 << 4 | scale(j + 12) >> 4 << 6);
}
void unpack(const Q3_K& b, const View& v) {
  *v.d = real(b.d);
  for (int s = 0; s < 16; ++s) {
    const int low = s < 8 ? b.scales[s] & 15 : b.scales[s - 8] >> 4, high = b.scales[8 + s % 4] >> (2 * (s / 4)) & 3;
    v.scales[s] = static_cast<int8_t>((low | high << 4) - 32);
    for (int l = 0; l < 16; ++l) {
      const int place = place_of_pair(s, l), code = (b.qs[place] >> shift_of_pair(s) & 3) | (b.hmask[s % 2 * 16 + l] >> (s / 2) & 1) << 2;
      v.codes[s * 16 + l] = static_cast<int8_t>(code - 4);
    }
  }
}

// Eight 6-bit scales and minima in 12 bytes: the first four whole, of the others four bits in bytes 8…11 and two above the first.
template <class B>
void pack_k4(B& b, const View& v) {
  b.d = half_bits(*v.d), b.dmin = half_bits(*v.m);
  for (int j = 0; j < 4; ++j) {
    b.scales[j] = static_cast<uint8_t>(v.scales[j] | v.scales[j + 4] >> 4 << 6);
    b.scales[j + 4] = static_cast<uint8_t>(v.mins[j] | v.mins[j + 4] >> 4 << 6);
    b.scales[j + 8] = static_cast<uint8_t>((v.scales[j + 4] & 15) | (v.mins[j + 4] & 15) << 4);
  }
  for (int pair = 0; pair < 4; ++pair)
    for (int l = 0; l < 32; ++l) {
      const int8_t* q = v.codes + pair * 64 + l;
      b.qs[pair * 32 + l] = static_cast<uint8_t>((q[0] & 15) | (q[32] & 15) << 4);
    }
}
template <class B>
void unpack_k4(const B& b, const View& v) {
  *v.d = real(b.d), *v.m = real(b.dmin);
  for (int j = 0; j < 4; ++j) {
    v.scales[j] = static_cast<int8_t>(b.scales[j] & 63);
    v.mins[j] = static_cast<int8_t>(b.scales[j + 4] & 63);
    v.scales[j + 4] = static_cast<int8_t>((b.scales[j + 8] & 15) | b.scales[j] >> 6 << 4);
    v.mins[j + 4] = static_cast<int8_t>(b.scales[j + 8] >> 4 | b.scales[j + 4] >> 6 << 4);
  }
  for (int sub = 0; sub < 8; ++sub)
    for (int l = 0; l < 32; ++l) v.codes[sub * 32 + l] = static_cast<int8_t>(b.qs[sub / 2 * 32 + l] >> (4 * (sub % 2)) & 15);
}

void pack(Q4_K& b, const View& v) { pack_k4(b, v); }
void unpack(const Q4_K& b, const View& v) { unpack_k4(b, v); }
void pack(Q5_K& b, const View& v) {
  pack_k4(b, v);
  for (int l = 0; l < 32; ++l) {
    unsigned bits = 0;
    for (int sub = 0; sub < 8; ++sub) bits |= static_cast<unsigned>(v.codes[sub * 32 + l] >> 4) << sub;
    b.qh[l] = static_cast<uint8_t>(bits);
  }
}
void unpack(const Q5_K& b, const View& v) {
  unpack_k4(b, v);
  for (int sub = 0; sub < 8; ++sub)
    for (int l = 0; l < 32; ++l) v.codes[sub * 32 + l] = static_cast<int8_t>(v.codes[sub * 32 + l] | (b.qh[l] >> sub & 1) << 4);
}

// Code + 32 in six bits, of 128 values each: quarters 0 and 1 low, 2 and 3 high in ql's nibbles; two bits of each quarter in qh.
void pack(Q6_K& b, const View& v) {
  b.d = half_bits(*v.d);
  std::memcpy(b.scales, v.scales, 16);
  for (int half = 0; half < 2; ++half)
    for (int l = 0; l < 32; ++l) {
      unsigned q[4];
      for (int quarter = 0; quarter < 4; ++quarter) q[quarter] = static_cast<unsigned>(v.codes[half * 128 + quarter * 32 + l] + 32);
      b.ql[half * 64 + l] = static_cast<uint8_t>((q[0] & 15) | (q[2] & 15) << 4);
      b.ql[half * 64 + 32 + l] = static_cast<uint8_t>((q[1] & 15) | (q[3] & 15) << 4);
      b.qh[half * 32 + l] = static_cast<uint8_t>(q[0] >> 4 | q[1] >> 4 << 2 | q[2] >> 4 << 4 | q[3] >> 4 << 6);
    }
}
void unpack(const Q6_K& b, const View& v) {
  *v.d = real(b.d);
  std::memcpy(v.scales, b.scales, 16);
  for (int half = 0; half < 2; ++half)
    for (int quarter = 0; quarter < 4; ++quarter)
      for (int l = 0; l < 32; ++l) {
        const int low = b.ql[half * 64 + quarter % 2 * 32 + l] >> (4 * (quarter / 2)) & 15, high = b.qh[half * 32 + l] >> (2 * quarter) & 3;
        v.codes[half * 128 + quarter * 32 + l] = static_cast<int8_t>((low | high << 4) - 32);
      }
}

// --- All blocks of a matrix. They follow each other row by row, and so do their parts.

struct Pointers {
  int8_t* codes;
  float *d, *m;
  int8_t *scales, *mins;
  int64_t per_block, subs;
  View of(int64_t block) const {
    return {codes + block * per_block, d + block, m ? m + block : nullptr, scales ? scales + block * subs : nullptr, mins ? mins + block * subs : nullptr};
  }
};

template <class Block>
void pack_all(const Pointers& parts, int64_t blocks, uint8_t* out) {
  at::parallel_for(0, blocks, 32768 / parts.per_block, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Block block;
      pack(block, parts.of(i));
      std::memcpy(out + i * static_cast<int64_t>(sizeof(Block)), &block, sizeof(Block));
    }
  });
}

template <class Block>
void unpack_all(const Pointers& parts, int64_t blocks, const uint8_t* bytes) {
  at::parallel_for(0, blocks, 32768 / parts.per_block, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Block block;  // a copy, since blocks lie unaligned
      std::memcpy(&block, bytes + i * static_cast<int64_t>(sizeof(Block)), sizeof(Block));
      unpack(block, parts.of(i));
    }
  });
}

// Calls `use` with a null pointer to the type's block.
template <class Use>
void with_block(DType dtype, Use use) {
  switch (dtype) {
    case DType::q4_0: return use(static_cast<Q4_0*>(nullptr));
    case DType::q4_1: return use(static_cast<Q4_1*>(nullptr));
    case DType::q5_0: return use(static_cast<Q5_0*>(nullptr));
    case DType::q5_1: return use(static_cast<Q5_1*>(nullptr));
    case DType::q8_0: return use(static_cast<Q8_0*>(nullptr));
    case DType::q2_k: return use(static_cast<Q2_K*>(nullptr));
    case DType::q3_k: return use(static_cast<Q3_K*>(nullptr));
    case DType::q4_k: return use(static_cast<Q4_K*>(nullptr));
    case DType::q5_k: return use(static_cast<Q5_K*>(nullptr));
    case DType::q6_k: return use(static_cast<Q6_K*>(nullptr));
    case DType::iq4_nl: return use(static_cast<IQ4_NL*>(nullptr));
    case DType::mxfp4: return use(static_cast<MXFP4*>(nullptr));
    default: throw InternalError(fmt::format("{} is not a ggml block format", name_of(dtype)));
  }
}

// A part as the packer takes it: its shape, its type, its range.
at::Tensor checked(DType dtype, const char* name, const at::Tensor& part, at::ScalarType type, int64_t rows, int64_t columns) {
  const auto wrong = [&](const std::string& found) { return InternalError(fmt::format("{}: {} {}, expected {} [{}, {}]", name_of(dtype), name, found, at::toString(type), rows, columns)); };
  if (!part.defined()) throw wrong("missing");
  if (part.scalar_type() != type || part.sizes() != at::IntArrayRef({rows, columns})) throw wrong(fmt::format("are {} [{}]", at::toString(part.scalar_type()), fmt::join(part.sizes(), ", ")));
  return part.to(at::kCPU).contiguous();
}

at::Tensor integers(DType dtype, const char* name, const at::Tensor& part, int64_t rows, int64_t columns, int lowest, int highest) {
  const at::Tensor plain = checked(dtype, name, part, at::kChar, rows, columns);
  if (plain.numel() == 0 || (lowest == -128 && highest == 127)) return plain;
  const auto [low, high] = at::aminmax(plain);
  if (low.item<int>() < lowest || high.item<int>() > highest)
    throw InternalError(fmt::format("{}: {} from {} to {}, expected {} to {}", name_of(dtype), name, low.item<int>(), high.item<int>(), lowest, highest));
  return plain;
}

at::Tensor halves(DType dtype, const char* name, const at::Tensor& part, int64_t rows, int64_t blocks) {
  const at::Tensor plain = checked(dtype, name, part, at::kFloat, rows, blocks);
  const float* values = plain.const_data_ptr<float>();
  for (int64_t i = 0; i < plain.numel(); ++i) {
    const bool exact = dtype == DType::mxfp4 ? std::bit_cast<uint32_t>(power(exponent(values[i]))) == std::bit_cast<uint32_t>(values[i])
                                             : real(half_bits(values[i])) == values[i] || values[i] != values[i];
    if (!exact) throw InternalError(fmt::format("{}: {} of row {}, block {} is {}, expected {}", name_of(dtype), name, i / blocks, i % blocks, values[i],
                                                dtype == DType::mxfp4 ? "a power of two from 2^-127 to 2^127" : "a half float's value"));
  }
  return plain;
}

template <class T>
T* data_of(at::Tensor& tensor) {
  return tensor.defined() ? tensor.mutable_data_ptr<T>() : nullptr;
}

Pointers pointers_of(GgmlParts& parts, const GgmlLayout& layout) {
  return {data_of<int8_t>(parts.codes), data_of<float>(parts.d), data_of<float>(parts.m), data_of<int8_t>(parts.scales), data_of<int8_t>(parts.mins),
          layout.block, layout.sub_block > 0 ? layout.block / layout.sub_block : 0};
}

}  // namespace

GgmlLayout ggml_layout(DType dtype) {
  switch (dtype) {
    case DType::q4_0: return {.block = 32, .lowest = -8, .highest = 7};
    case DType::q4_1: return {.block = 32, .highest = 15, .m = true};
    case DType::q5_0: return {.block = 32, .lowest = -16, .highest = 15};
    case DType::q5_1: return {.block = 32, .highest = 31, .m = true};
    case DType::q8_0: return {.block = 32, .lowest = -128, .highest = 127};
    case DType::iq4_nl: case DType::mxfp4: return {.block = 32, .highest = 15};
    case DType::q2_k: return {.block = 256, .sub_block = 16, .highest = 3, .highest_scale = 15, .highest_min = 15, .m = true};
    case DType::q3_k: return {.block = 256, .sub_block = 16, .lowest = -4, .highest = 3, .lowest_scale = -32, .highest_scale = 31};
    case DType::q4_k: return {.block = 256, .sub_block = 32, .highest = 15, .highest_scale = 63, .highest_min = 63, .m = true};
    case DType::q5_k: return {.block = 256, .sub_block = 32, .highest = 31, .highest_scale = 63, .highest_min = 63, .m = true};
    case DType::q6_k: return {.block = 256, .sub_block = 16, .lowest = -32, .highest = 31, .lowest_scale = -128, .highest_scale = 127};
    default: throw InternalError(fmt::format("{} is not a ggml block format", name_of(dtype)));
  }
}

at::Tensor pack_ggml(DType dtype, const GgmlParts& given) {
  const GgmlLayout layout = ggml_layout(dtype);
  if (!given.codes.defined() || given.codes.dim() != 2 || given.codes.size(1) % layout.block != 0)
    throw InternalError(fmt::format("{}: codes are no matrix with rows of a multiple of {}", name_of(dtype), layout.block));
  const int64_t rows = given.codes.size(0), columns = given.codes.size(1), blocks = columns / layout.block;
  GgmlParts parts;
  parts.codes = integers(dtype, "codes", given.codes, rows, columns, layout.lowest, layout.highest);
  parts.d = halves(dtype, "scales d", given.d, rows, blocks);
  if (layout.m) parts.m = halves(dtype, "minima m", given.m, rows, blocks);
  if (layout.sub_block > 0) parts.scales = integers(dtype, "scales of sub-blocks", given.scales, rows, columns / layout.sub_block, layout.lowest_scale, layout.highest_scale);
  if (layout.highest_min > 0) parts.mins = integers(dtype, "minima of sub-blocks", given.mins, rows, columns / layout.sub_block, 0, layout.highest_min);
  at::Tensor out = at::empty({rows, blocks * block_bytes(dtype)}, at::kByte);
  // The parts are only read: they may be the caller's own.
  const auto whole = [](const at::Tensor& part) { return part.defined() ? const_cast<void*>(part.const_data_ptr()) : nullptr; };
  const Pointers pointers{static_cast<int8_t*>(whole(parts.codes)), static_cast<float*>(whole(parts.d)), static_cast<float*>(whole(parts.m)), static_cast<int8_t*>(whole(parts.scales)),
                          static_cast<int8_t*>(whole(parts.mins)), layout.block, layout.sub_block > 0 ? layout.block / layout.sub_block : 0};
  with_block(dtype, [&]<class Block>(Block*) { pack_all<Block>(pointers, rows * blocks, out.mutable_data_ptr<uint8_t>()); });
  return out;
}

GgmlParts unpack_ggml(DType dtype, const at::Tensor& bytes) {
  const GgmlLayout layout = ggml_layout(dtype);
  if (bytes.scalar_type() != at::kByte || bytes.dim() != 2 || bytes.size(1) % block_bytes(dtype) != 0 || !bytes.is_contiguous())
    throw InternalError(fmt::format("{}: no matrix of bytes with rows of a multiple of {}", name_of(dtype), block_bytes(dtype)));
  const int64_t rows = bytes.size(0), blocks = bytes.size(1) / block_bytes(dtype), columns = blocks * layout.block;
  GgmlParts parts;
  parts.codes = at::empty({rows, columns}, at::kChar);
  parts.d = at::empty({rows, blocks}, at::kFloat);
  if (layout.m) parts.m = at::empty_like(parts.d);
  if (layout.sub_block > 0) parts.scales = at::empty({rows, columns / layout.sub_block}, at::kChar);
  if (layout.highest_min > 0) parts.mins = at::empty_like(parts.scales);
  const Pointers pointers = pointers_of(parts, layout);
  with_block(dtype, [&]<class Block>(Block*) { unpack_all<Block>(pointers, rows * blocks, bytes.const_data_ptr<uint8_t>()); });
  return parts;
}

at::Tensor pack_ggml_floats(DType dtype, const at::Tensor& values) {
  at::ScalarType type;
  switch (dtype) {
    case DType::f32: type = at::kFloat; break;
    case DType::f16: type = at::kHalf; break;
    case DType::bf16: type = at::kBFloat16; break;
    default: throw InternalError(fmt::format("{} is not F32, F16 or BF16", name_of(dtype)));
  }
  if (values.dim() != 2) throw InternalError(fmt::format("{}: values of {} dimensions, expected 2", name_of(dtype), values.dim()));
  return values.to(at::kCPU, type).contiguous().view(at::kByte);
}

}  // namespace qb
