#include "core/format/pack.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/base/error.h"

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
  at::parallel_for(0, rows, kGrain / (n + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const uint8_t* code = from + row * n;
      int32_t* word = to + row * words;
      uint64_t stream = 0;  // bits not yet written, lowest first
      int held = 0;
      for (int64_t i = 0; i < n; ++i) {
        stream |= uint64_t{code[i]} << held;
        held += bits;
        if (held < kWordBits) continue;
        *word++ = static_cast<int32_t>(static_cast<uint32_t>(stream));
        stream >>= kWordBits;
        held -= kWordBits;
      }
      if (held > 0) *word = static_cast<int32_t>(static_cast<uint32_t>(stream));
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
  const uint64_t mask = (uint64_t{1} << bits) - 1;
  at::parallel_for(0, rows, kGrain / (n + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int32_t* word = from + row * per_row;
      uint8_t* code = to + row * n;
      uint64_t stream = 0;
      int held = 0;
      for (int64_t i = 0; i < n; ++i) {
        if (held < bits) {
          stream |= uint64_t{static_cast<uint32_t>(*word++)} << held;
          held += kWordBits;
        }
        code[i] = static_cast<uint8_t>(stream & mask);
        stream >>= bits;
        held -= bits;
      }
    }
  });
  return codes;
}

}  // namespace qb
