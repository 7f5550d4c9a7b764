#include "core/quant/packing.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/base/error.h"
#include "core/format/eight_codes.h"

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
  const int bits = type.bits;
  const auto offset = static_cast<uint8_t>(1 << (bits - 1));
  const int64_t count = source.numel(), eights = (count + 7) / 8;
  at::Tensor packed = at::empty({eights * bits}, at::kByte);
  const auto* in = reinterpret_cast<const uint8_t*>(source.const_data_ptr<int8_t>());
  auto* out = packed.mutable_data_ptr<uint8_t>();
  const EightsLoop pack = packing_loop(bits);
  at::parallel_for(0, count / 8, kGrain, [&](int64_t begin, int64_t end) { pack(in + begin * 8, out + begin * bits, end - begin, offset); });
  if (const int64_t whole = count / 8; whole < eights) {
    std::array<uint8_t, 8> last;
    last.fill(static_cast<uint8_t>(-offset));  // what follows the last code is 0
    std::copy(in + whole * 8, in + count, last.begin());
    pack(last.data(), out + whole * bits, 1, offset);
  }
  return packed;
}

at::Tensor unpack_codes(const at::Tensor& packed, const NumberType& type, int64_t out_features, int64_t in_features) {
  const int64_t count = out_features * in_features;
  if (type.kind == NumberType::Kind::floating) {
    if (packed.scalar_type() != float_storage(type) || packed.numel() != count)
      throw InputError(fmt::format("expected {} codes of {}, found {} of another type", count, type.text(), packed.numel()));
    return packed.to(at::kFloat).reshape({out_features, in_features});
  }
  const int bits = type.bits;
  const auto offset = static_cast<uint8_t>(-(1 << (bits - 1)));
  const int64_t eights = (count + 7) / 8;
  if (packed.scalar_type() != at::kByte || packed.numel() != eights * bits)
    throw InputError(fmt::format("expected {} bytes of {} codes, found {}", eights * bits, type.text(), packed.numel()));
  const at::Tensor source = packed.contiguous();
  at::Tensor codes = at::empty({out_features, in_features}, at::kChar);
  const auto* in = source.const_data_ptr<uint8_t>();
  auto* out = reinterpret_cast<uint8_t*>(codes.mutable_data_ptr<int8_t>());
  const EightsLoop unpack = unpacking_loop(bits);
  at::parallel_for(0, count / 8, kGrain, [&](int64_t begin, int64_t end) { unpack(in + begin * bits, out + begin * 8, end - begin, offset); });
  if (const int64_t whole = count / 8; whole < eights) {
    std::array<uint8_t, 8> last;
    unpack(in + whole * bits, last.data(), 1, offset);
    std::copy_n(last.begin(), count - whole * 8, out + whole * 8);
  }
  return codes;
}

}  // namespace qb
