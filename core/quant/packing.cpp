#include "core/quant/packing.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include "core/base/error.h"

namespace qb {
namespace {

constexpr int64_t kGrain = 1 << 14;  // eights of codes a thread takes at least

at::ScalarType float_storage(const NumberType& type) {
  if (type.exponent_bits <= 4 && type.mantissa_bits <= 3) return at::kFloat8_e4m3fn;
  if (type.exponent_bits <= 5 && type.mantissa_bits <= 2) return at::kFloat8_e5m2;
  return type.exponent_bits <= 5 && type.mantissa_bits <= 10 ? at::kHalf : at::kFloat;
}

}  // namespace

at::Tensor pack_codes(const at::Tensor& codes, const NumberType& type) {
  const at::Tensor source = codes.to(at::kCPU).contiguous();
  if (type.kind == NumberType::Kind::floating) return source.to(float_storage(type));
  const int bits = type.bits, offset = 1 << (bits - 1);
  const int64_t count = source.numel(), eights = (count + 7) / 8;
  at::Tensor packed = at::empty({eights * bits}, at::kByte);
  const auto* in = source.const_data_ptr<int8_t>();
  auto* out = packed.mutable_data_ptr<uint8_t>();
  at::parallel_for(0, eights, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t e = begin; e < end; ++e) {
      uint64_t word = 0;
      const int64_t n = std::min<int64_t>(8, count - e * 8);
      for (int64_t k = 0; k < n; ++k) word |= static_cast<uint64_t>(static_cast<uint8_t>(in[e * 8 + k] + offset)) << (k * bits);
      for (int b = 0; b < bits; ++b) out[e * bits + b] = static_cast<uint8_t>(word >> (8 * b));
    }
  });
  return packed;
}

at::Tensor unpack_codes(const at::Tensor& packed, const NumberType& type, int64_t out_features, int64_t in_features) {
  const int64_t count = out_features * in_features;
  if (type.kind == NumberType::Kind::floating) {
    if (packed.scalar_type() != float_storage(type) || packed.numel() != count)
      throw InputError(fmt::format("expected {} codes of {}, found {} of another type", count, type.text(), packed.numel()));
    return packed.to(at::kFloat).reshape({out_features, in_features});
  }
  const int bits = type.bits, offset = 1 << (bits - 1);
  const int64_t eights = (count + 7) / 8;
  if (packed.scalar_type() != at::kByte || packed.numel() != eights * bits)
    throw InputError(fmt::format("expected {} bytes of {} codes, found {}", eights * bits, type.text(), packed.numel()));
  const at::Tensor source = packed.contiguous();
  at::Tensor codes = at::empty({out_features, in_features}, at::kChar);
  const auto* in = source.const_data_ptr<uint8_t>();
  auto* out = codes.mutable_data_ptr<int8_t>();
  const uint64_t mask = (uint64_t{1} << bits) - 1;
  at::parallel_for(0, eights, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t e = begin; e < end; ++e) {
      uint64_t word = 0;
      for (int b = 0; b < bits; ++b) word |= static_cast<uint64_t>(in[e * bits + b]) << (8 * b);
      const int64_t n = std::min<int64_t>(8, count - e * 8);
      for (int64_t k = 0; k < n; ++k) out[e * 8 + k] = static_cast<int8_t>(static_cast<int>((word >> (k * bits)) & mask) - offset);
    }
  });
  return codes;
}

}  // namespace qb
