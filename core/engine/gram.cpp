#include "core/engine/gram.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "core/engine/gram_kernel.h"

namespace qb {
namespace {

constexpr int64_t kGramColumns = 512;    // of one product where a library multiplies
constexpr int64_t kPackedTokens = 2048;  // at a time, so that packed inputs stay small beside the hidden states

void add_products(const at::Tensor& gram, const at::Tensor& x) {
  const int64_t in = x.size(1);
  for (int64_t begin = 0; begin < in; begin += kGramColumns) {
    const int64_t end = std::min(begin + kGramColumns, in);
    at::Tensor rows = gram.slice(0, begin, end).slice(1, begin);
    const at::Tensor left = x.slice(1, begin, end).t(), right = x.slice(1, begin);
    if (x.scalar_type() == at::kFloat) rows.addmm_(left, right);
    else rows.add_(at::mm(left, right, at::kFloat));  // exact products, sums in float32: at a GPU's 16-bit speed
  }
}

void add_tiles(const at::Tensor& gram, const at::Tensor& x, const GramKernel& kernel) {
  const int64_t in = x.size(1), panels = kernel.panels(in), words = panels * kernel.panel_words;
  const at::Tensor rows = x.stride(1) == 1 ? x : x.contiguous();
  const bool wide = x.scalar_type() == at::kFloat;
  const auto* data = wide ? nullptr : reinterpret_cast<const uint16_t*>(rows.const_data_ptr<at::BFloat16>());
  const auto* floats = wide ? rows.const_data_ptr<float>() : nullptr;
  auto* sums = gram.data_ptr<float>();
  const int64_t room = (std::min(kPackedTokens, rows.size(0)) + kernel.tokens - 1) / kernel.tokens;
  const at::Tensor scratch = at::empty({room * words}, at::kInt);
  auto* packed = reinterpret_cast<uint32_t*>(scratch.data_ptr<int32_t>());
  for (int64_t begin = 0; begin < rows.size(0); begin += kPackedTokens) {
    const int64_t tokens = std::min(kPackedTokens, rows.size(0) - begin), blocks = (tokens + kernel.tokens - 1) / kernel.tokens;
    at::parallel_for(0, blocks, 1, [&](int64_t from, int64_t to) {
      for (int64_t b = from; b < to; ++b) {
        const int64_t stride = rows.stride(0), start = (begin + b * kernel.tokens) * stride, count = std::min(kernel.tokens, tokens - b * kernel.tokens);
        if (wide) kernel.pack_float(floats + start, stride, count, in, packed + b * words);
        else kernel.pack(data + start, stride, count, in, packed + b * words);
      }
    });
    // Tiles on and above the diagonal, numbered column by column; each belongs to one thread.
    at::parallel_for(0, panels * (panels + 1) / 2, 1, [&](int64_t from, int64_t to) {
      for (int64_t b = 0; b < blocks; ++b)
        for (int64_t column = 0, tile = 0; column < panels && tile < to; tile += ++column) {
          const int64_t first = std::max<int64_t>(0, from - tile), last = std::min(column + 1, to - tile);
          if (first < last) kernel.add(packed + b * words, first, last, column, in, sums);
        }
    });
  }
}

}  // namespace

void add_upper_gram(const at::Tensor& gram, const at::Tensor& x) {
  if (x.is_cpu() && x.scalar_type() == at::kBFloat16 && !gram_kernels().empty()) return add_tiles(gram, x, gram_kernels().front());
  if (const GramKernel* kernel = float_gram_kernel(); kernel && x.is_cpu() && x.scalar_type() == at::kFloat) return add_tiles(gram, x, *kernel);
  add_products(gram, x.is_cuda() ? x : x.to(at::kFloat));
}

void add_upper_gram(const at::Tensor& gram, const at::Tensor& x, const GramKernel& kernel) { add_tiles(gram, x, kernel); }

at::Tensor complete_gram(const at::Tensor& upper) {
  constexpr int64_t kRows = 128;
  const int64_t in = upper.size(0);
  for (int64_t begin = 0; begin < in; begin += kRows) {
    const int64_t end = std::min(begin + kRows, in);
    const at::Tensor rows = upper.slice(0, begin, end), corner = rows.slice(1, begin, end);
    corner.copy_(corner.triu() + corner.triu(1).t());
    upper.slice(0, end).slice(1, begin, end).copy_(rows.slice(1, end).t());
  }
  return upper;
}

}  // namespace qb
