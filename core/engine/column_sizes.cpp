#include "core/engine/column_sizes.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "core/base/cpu_clones.h"

namespace qb {
namespace {

constexpr int64_t kColumns = 64;  // of a strip: its sums stay in registers or the nearest cache
constexpr int64_t kTokens = 512;  // summed before they are added to what came before: rounding errors grow with a sum's terms

struct Strip {
  float largest[kColumns] = {}, sizes[kColumns] = {}, squares[kColumns] = {};
};

template <class T>
inline void add_row(const T* x, int64_t columns, Strip& strip) {
  for (int64_t c = 0; c < columns; ++c) {
    const float size = std::fabs(static_cast<float>(x[c]));
    strip.largest[c] = std::max(strip.largest[c], size);
    strip.sizes[c] += size;
    strip.squares[c] += size * size;
  }
}

QB_CPU_CLONES void add_rows(const at::BFloat16* x, int64_t stride, int64_t tokens, int64_t columns, Strip& strip) {
  for (int64_t t = 0; t < tokens; ++t) add_row(x + t * stride, columns, strip);
}
QB_CPU_CLONES void add_rows(const float* x, int64_t stride, int64_t tokens, int64_t columns, Strip& strip) {
  for (int64_t t = 0; t < tokens; ++t) add_row(x + t * stride, columns, strip);
}
void add_rows(const at::Half* x, int64_t stride, int64_t tokens, int64_t columns, Strip& strip) {
  for (int64_t t = 0; t < tokens; ++t) add_row(x + t * stride, columns, strip);
}

}  // namespace

ColumnSizes column_sizes(const at::Tensor& x) {
  if (!x.is_cpu()) {
    const at::Tensor size = x.abs();
    return {size.amax(0).to(at::kFloat), size.sum(0, false, at::kFloat), size.to(at::kFloat).square_().sum(0)};
  }
  const at::Tensor rows = x.stride(1) == 1 ? x : x.contiguous();
  const int64_t tokens = rows.size(0), in = rows.size(1), stride = rows.stride(0);
  const at::Tensor all = at::zeros({3, in}, at::kFloat);
  auto* out = all.data_ptr<float>();
  auto sum = [&](const auto* data) {
    at::parallel_for(0, (in + kColumns - 1) / kColumns, 1, [&](int64_t from, int64_t to) {
      for (int64_t s = from; s < to; ++s) {
        const int64_t first = s * kColumns, columns = std::min(kColumns, in - first);
        for (int64_t begin = 0; begin < tokens; begin += kTokens) {
          Strip strip;
          add_rows(data + begin * stride + first, stride, std::min(kTokens, tokens - begin), columns, strip);
          for (int64_t c = 0; c < columns; ++c) {
            // std::max drops a NaN, a sum keeps it.
            out[first + c] = std::isnan(strip.sizes[c]) ? strip.sizes[c] : std::max(out[first + c], strip.largest[c]);
            out[in + first + c] += strip.sizes[c];
            out[2 * in + first + c] += strip.squares[c];
          }
        }
      }
    });
  };
  if (rows.scalar_type() == at::kBFloat16) sum(rows.const_data_ptr<at::BFloat16>());
  else if (rows.scalar_type() == at::kHalf) sum(rows.const_data_ptr<at::Half>());
  else sum(rows.const_data_ptr<float>());
  return {all[0], all[1], all[2]};
}

}  // namespace qb
