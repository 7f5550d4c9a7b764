#include "core/format/pack.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/format/eight_codes.h"

namespace qb {
namespace {

constexpr int64_t kWordBits = 32;
constexpr int64_t kGrain = 1 << 15;  // codes a task

void check(const at::Tensor& tensor, int bits, const char* what) {
  if (bits < 1 || bits > 8) throw InternalError(fmt::format("packing: {} bits, expected 1 to 8", bits));
  if (tensor.dim() != 2) throw InternalError(fmt::format("packing: {} of shape [{}], expected two dimensions", what, fmt::join(tensor.sizes(), ", ")));
}

int64_t words_for(int64_t n, int bits) { return (n * bits + kWordBits - 1) / kWordBits; }

}  // namespace

at::Tensor pack_codes(const at::Tensor& codes, int bits) {
  check(codes, bits, "codes");
  if (!at::isIntegralType(codes.scalar_type(), false)) throw InternalError(fmt::format("packing: codes of type {}", at::toString(codes.scalar_type())));
  if (codes.numel() > 0) {
    const auto [low, high] = codes.aminmax();
    const auto least = low.item<int64_t>(), greatest = high.item<int64_t>();
    if (least < 0 || greatest >= int64_t{1} << bits)
      throw InternalError(fmt::format("packing: codes from {} to {}, expected 0 to {}", least, greatest, (1 << bits) - 1));
  }
  const at::Tensor plain = codes.to(at::kCPU, at::kByte).contiguous();
  const int64_t rows = plain.size(0), n = plain.size(1), words = words_for(n, bits);
  at::Tensor packed = at::empty({rows, words}, at::kInt);
  const auto* from = plain.const_data_ptr<uint8_t>();
  auto* to = packed.data_ptr<int32_t>();
  const EightsLoop pack = packing_loop(bits);
  at::parallel_for(0, rows, kGrain / (n + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const uint8_t* code = from + row * n;
      auto* bytes = reinterpret_cast<uint8_t*>(to + row * words);
      const int64_t eights = n / 8, done = eights * bits, left = words * 4 - done;
      pack(code, bytes, eights, 0);
      uint8_t last[8] = {}, tail[8 + 4] = {};  // fewer than eight codes, and what is left of the last word
      std::copy(code + eights * 8, code + n, last);
      pack(last, tail, 1, 0);
      std::copy(tail, tail + left, bytes + done);
    }
  });
  return packed;
}

at::Tensor unpack_codes(const at::Tensor& words, int bits, int64_t n) {
  check(words, bits, "words");
  if (words.scalar_type() != at::kInt || n < 0 || words.size(1) != words_for(n, bits))
    throw InternalError(fmt::format("packing: {} words of {} a row are not {} codes of {} bits", words.size(1), at::toString(words.scalar_type()), n, bits));
  const at::Tensor plain = words.to(at::kCPU).contiguous();
  const int64_t rows = plain.size(0), per_row = plain.size(1);
  at::Tensor codes = at::empty({rows, n}, at::kByte);
  const auto* from = plain.const_data_ptr<int32_t>();
  auto* to = codes.data_ptr<uint8_t>();
  const EightsLoop unpack = unpacking_loop(bits);
  at::parallel_for(0, rows, kGrain / (n + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const auto* bytes = reinterpret_cast<const uint8_t*>(from + row * per_row);
      uint8_t* code = to + row * n;
      const int64_t eights = n / 8, done = eights * bits, left = std::min<int64_t>(per_row * 4 - done, bits);
      unpack(bytes, code, eights, 0);
      uint8_t tail[8] = {}, last[8];
      std::copy(bytes + done, bytes + done + left, tail);
      unpack(tail, last, 1, 0);
      std::copy(last, last + n % 8, code + eights * 8);
    }
  });
  return codes;
}

}  // namespace qb
