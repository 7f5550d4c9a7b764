#include "core/quant/rounding_error.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "core/base/cpu_clones.h"

namespace qb {
namespace {

struct Unit {
  float scale, zero, lowest, highest;
};

QB_CPU_CLONES
void unit_error(const float* w, float* error, int64_t n, const Unit& unit) {
  for (int64_t i = 0; i < n; ++i) {
    const float code = std::min(std::max(std::nearbyint(w[i] / unit.scale + unit.zero), unit.lowest), unit.highest);
    error[i] = (code - unit.zero) * unit.scale - w[i];
  }
}

}  // namespace

at::Tensor rounding_error(const at::Tensor& weight, const QuantSpec& spec, const ScaleZero& grid) {
  const bool rows_are_units = spec.granularity == Granularity::group || spec.granularity == Granularity::channel || spec.granularity == Granularity::tensor;
  if (spec.type.kind != NumberType::Kind::integer || !rows_are_units || spec.storage == Storage::iq4_nl || !weight.is_cpu())
    return quantize(weight, spec, grid).dequantize().sub_(weight);
  const at::Tensor w = weight.contiguous(), scale = grid.scale.contiguous(), zero = grid.zero.defined() ? grid.zero.contiguous() : at::Tensor();
  at::Tensor error = at::empty_like(w);
  const auto [low, high] = code_bounds(spec);
  const int64_t units = scale.numel(), n = w.numel() / units;
  const float *in = w.const_data_ptr<float>(), *s = scale.const_data_ptr<float>(), *z = zero.defined() ? zero.const_data_ptr<float>() : nullptr;
  auto* out = error.data_ptr<float>();
  at::parallel_for(0, units, std::max<int64_t>(1, 16384 / n), [&, lowest = static_cast<float>(low), highest = static_cast<float>(high)](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) unit_error(in + u * n, out + u * n, n, {s[u], z ? z[u] : 0, lowest, highest});
  });
  return error;
}

}  // namespace qb
