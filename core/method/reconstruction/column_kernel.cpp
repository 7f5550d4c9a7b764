#include "core/method/reconstruction/column_kernel.h"

#include <algorithm>
#include <cmath>

#include "core/base/cpu_clones.h"

namespace qb {
namespace {

constexpr int64_t kLanes = 32;

struct Tile {
  float weight[kLanes], kept[kLanes], value[kLanes], error[kLanes];
};

inline float nearest_level(float x, const int* levels) {
  float level = static_cast<float>(levels[0]);
  for (int i = 1; i < 16; ++i) level += 2 * x > static_cast<float>(levels[i] + levels[i - 1]) ? static_cast<float>(levels[i] - levels[i - 1]) : 0.0f;
  return level;
}

QB_CPU_CLONES
double round_tile(const ColumnSlab& s, int64_t first, int64_t lanes) {
  double loss = 0;
  Tile t;
  for (int64_t j = 0; j < s.columns; ++j) {
    float* column = s.weight + j * s.row_stride + first;
    const float* scale = s.scale + s.unit[j] * s.unit_stride + first;
    const float* zero = s.zero ? s.zero + s.unit[j] * s.unit_stride + first : nullptr;
    for (int64_t r = 0; r < lanes; ++r) t.weight[r] = column[r];
    int8_t* codes = s.codes + j * s.row_stride + first;
    const float* from = t.weight;
    if (s.kept) {
      const bool* kept = s.kept + j * s.row_stride + first;
      for (int64_t r = 0; r < lanes; ++r) t.kept[r] = kept[r] ? t.weight[r] : 0.0f;
      from = t.kept;
    }
    if (s.levels) {
      for (int64_t r = 0; r < lanes; ++r) {
        const float code = nearest_level(from[r] / scale[r], s.levels);  // a scale of zero: any level is right
        codes[r] = static_cast<int8_t>(code);
        t.value[r] = code * scale[r];
      }
    } else if (zero) {
      for (int64_t r = 0; r < lanes; ++r) {
        const float code = std::min(std::max(std::nearbyint(from[r] / scale[r] + zero[r]), s.lowest), s.highest);
        codes[r] = static_cast<int8_t>(code);
        t.value[r] = (code - zero[r]) * scale[r];
      }
    } else {
      for (int64_t r = 0; r < lanes; ++r) {
        const float code = std::min(std::max(std::nearbyint(from[r] / scale[r]), s.lowest), s.highest);
        codes[r] = static_cast<int8_t>(code);
        t.value[r] = code * scale[r];
      }
    }
    if (s.value) {
      float* value = s.value + j * s.row_stride + first;
      for (int64_t r = 0; r < lanes; ++r) {
        t.error[r] = t.value[r] - value[r];
        value[r] = t.value[r];
      }
    } else {
      const float inverse = 1.0f / s.factor[j * s.factor_stride + j];
      for (int64_t r = 0; r < lanes; ++r) t.error[r] = (t.weight[r] - t.value[r]) * inverse;
    }
    float* error = s.error + j * s.row_stride + first;
    float sum = 0;
    for (int64_t r = 0; r < lanes; ++r) {
      error[r] = t.error[r];
      sum += t.error[r] * t.error[r];
    }
    loss += static_cast<double>(sum);
    if (sum == 0) continue;  // as most are once ŵ is nearly as good as it gets
    const float* factor = s.factor + j * s.factor_stride;
    for (int64_t k = j + 1; k < s.columns; ++k) {
      float* later = s.weight + k * s.row_stride + first;
      const float u = factor[k];
      for (int64_t r = 0; r < lanes; ++r) later[r] -= t.error[r] * u;
    }
  }
  return loss;
}

}  // namespace

double round_columns(const ColumnSlab& slab) {
  double loss = 0;
  for (int64_t first = 0; first < slab.rows; first += kLanes) loss += round_tile(slab, first, std::min(kLanes, slab.rows - first));
  return loss;
}

}  // namespace qb
