#include "core/method/reconstruction/column_kernel_cuda.h"

#include "core/base/nvidia.h"

namespace qb {
namespace {

constexpr unsigned kThreads = 32;  // a row each; small blocks spread the rows of one linear over a whole GPU

// The loops of round_columns(): a thread keeps its row's weights in shared memory, where neighbours lie side by side.
const char* const kSource = R"(
extern "C" __global__ void round_columns(long long columns, long long rows, long long stride, float* weight, float* error, float* value,
                                         signed char* codes, const float* factor, long long factor_stride, const float* scale,
                                         const float* zero, const long long* unit, long long unit_stride, float lowest, float highest,
                                         const unsigned char* kept) {
  extern __shared__ float held[];
  const long long row = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (row >= rows) return;
  const int step = blockDim.x;
  float* const mine = held + threadIdx.x;
  for (int j = 0; j < columns; ++j) mine[j * step] = weight[j * stride + row];
  for (int j = 0; j < columns; ++j) {
    const float w = mine[j * step], s = scale[unit[j] * unit_stride + row], z = zero ? zero[unit[j] * unit_stride + row] : 0.0f;
    const float from = !kept || kept[j * stride + row] ? w : 0.0f;
    const float code = fminf(fmaxf(rintf(zero ? from / s + z : from / s), lowest), highest);
    const float rounded = (code - z) * s;
    const float* const later = factor + j * factor_stride;
    float e;
    if (value) {
      e = rounded - value[j * stride + row];
      value[j * stride + row] = rounded;
    } else {
      e = (w - rounded) * (1.0f / later[j]);
    }
    weight[j * stride + row] = w;
    codes[j * stride + row] = (signed char)code;
    error[j * stride + row] = e;
#pragma unroll 8
    for (int k = j + 1; k < columns; ++k) mine[k * step] -= e * later[k];
  }
}
)";

}  // namespace

bool round_columns_on_cuda(const ColumnSlab& slab) {
  static CudaKernel kernel(kSource, "round_columns");
  static_assert(kCudaColumns * kThreads * sizeof(float) <= 48 * 1024, "every device has this much without asking");
  ColumnSlab s = slab;
  void* arguments[] = {&s.columns, &s.rows, &s.row_stride, &s.weight, &s.error, &s.value, &s.codes, &s.factor, &s.factor_stride, &s.scale,
                       &s.zero, &s.unit, &s.unit_stride, &s.lowest, &s.highest, &s.kept};
  const auto blocks = static_cast<unsigned>((s.rows + kThreads - 1) / kThreads), shared = static_cast<unsigned>(s.columns * kThreads * sizeof(float));
  return kernel.launch(blocks, kThreads, shared, arguments);
}

}  // namespace qb
