#include "core/quant/quantizer.h"

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/quant/units.h"

namespace qb {

at::Tensor round_to_scale_type(const at::Tensor& values, ScaleType type) {
  switch (type) {
    case ScaleType::f32: break;
    case ScaleType::f16: return values.to(at::kHalf).to(at::kFloat);
    case ScaleType::bf16: return values.to(at::kBFloat16).to(at::kFloat);
  }
  return values;
}

at::Tensor stored_scale(const at::Tensor& scale, ScaleType type) {
  const at::Tensor positive = at::where(scale > 0, scale, at::ones_like(scale));
  // The smallest half: anything below would round to zero.
  const at::Tensor stored = round_to_scale_type(positive.clamp_min(type == ScaleType::f16 ? 5.9604645e-8 : 1e-30), type);
  if (type == ScaleType::f16 && !stored.isfinite().all().item<bool>())
    throw InputError("a scale is above 65504 and overflows float16; choose scale_type bfloat16 or float32");
  return stored;
}

namespace {

bool is_integer(const QuantSpec& spec) { return spec.type.kind == NumberType::Kind::integer; }
bool has_zero(const QuantSpec& spec) { return is_integer(spec) && !spec.symmetric; }

// A zero point as it is stored: a code, or a float of the scale's type.
at::Tensor store_zero(const at::Tensor& zero, const QuantSpec& spec) {
  if (!spec.round_zero_point) return round_to_scale_type(zero, spec.scale_type);
  const auto [low, high] = code_bounds(spec);
  return zero.round().clamp_(low, high);
}

// All arguments are [units, …]: codes of x on the grid.
at::Tensor encode(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero, const QuantSpec& spec) {
  if (!is_integer(spec)) return round_to_float(x / scale, spec.type);
  const auto [low, high] = code_bounds(spec);
  // The zero point is added before rounding: ties then fall as in compressed-tensors.
  at::Tensor q = x / scale;
  if (zero.defined()) q.add_(zero);
  return q.round_().clamp_(low, high);
}

at::Tensor decode(const at::Tensor& codes, const at::Tensor& scale, const at::Tensor& zero) {
  return zero.defined() ? (codes - zero).mul_(scale) : codes * scale;
}

ScaleZero grid_of(const at::Tensor& low, const at::Tensor& high, const QuantSpec& spec) {
  if (!is_integer(spec)) return {stored_scale(at::maximum(low.abs(), high.abs()) / float_max(spec.type), spec.scale_type), {}};
  const auto [qmin, qmax] = code_bounds(spec);
  if (spec.symmetric) {
    // compressed-tensors divides by half the number of steps (7.5 at 4 bits), LLMC and AutoGPTQ by the largest code (7).
    const double steps = spec.full_scale && !spec.narrow_range ? (qmax - qmin) / 2.0 : qmax;
    return {stored_scale(at::maximum(low.abs(), high.abs()) / steps, spec.scale_type), {}};
  }
  // The range takes in zero: pruned weights stay exact, and the zero point stays within the codes, where it can be stored.
  const at::Tensor below = low.clamp_max(0), above = high.clamp_min(0);
  const at::Tensor scale = stored_scale((above - below) / static_cast<double>(qmax - qmin), spec.scale_type);
  return {scale, store_zero(qmin - below / scale, spec)};
}

// [units, n] → the grid of the shrunk range whose Σ|error|^norm is least.
ScaleZero mse_grid(const at::Tensor& x, const QuantSpec& spec, const Control& control) {
  const at::Tensor low = x.amin(1, true), high = x.amax(1, true);
  ScaleZero best;
  at::Tensor best_error;
  const auto steps = static_cast<int64_t>(spec.mse_max_shrink * static_cast<double>(spec.mse_grid));
  for (int64_t i = 0; i < std::max<int64_t>(steps, 1); ++i) {
    control.checkpoint();
    const double keep = 1.0 - static_cast<double>(i) / static_cast<double>(spec.mse_grid);
    const ScaleZero grid = grid_of(low * keep, high * keep, spec);
    at::Tensor difference = decode(encode(x, grid.scale, grid.zero, spec), grid.scale, grid.zero).sub_(x).abs_();
    const at::Tensor error = difference.pow_(spec.mse_norm).sum(1, true);
    if (!best_error.defined()) {
      best = grid;
      best_error = error;
      continue;
    }
    const at::Tensor better = error < best_error;
    best_error = at::where(better, error, best_error);
    best.scale = at::where(better, grid.scale, best.scale);
    if (best.zero.defined()) best.zero = at::where(better, grid.zero, best.zero);
  }
  return best;
}

// Half-quadratic quantization (Badri & Shaji 2023): zero points by alternating between a shrinkage of the error, which
// solves the lp norm's proximal problem, and the mean that the shrunk error leaves for the zero point.
ScaleZero hqq_grid(const at::Tensor& x, const ScaleZero& start, const QuantSpec& spec, const Control& control) {
  QuantSpec free = spec;
  free.round_zero_point = false;
  auto error_of = [&](const at::Tensor& zero) {
    return decode(encode(x, start.scale, zero, spec), start.scale, zero).sub_(x).abs_().pow_(spec.hqq_norm).sum(1, true);
  };
  at::Tensor zero = start.zero, best = start.zero, best_error = error_of(start.zero);
  double beta = spec.hqq_beta;
  for (int64_t i = 0; i < spec.hqq_iterations; ++i) {
    control.checkpoint();
    const at::Tensor codes = encode(x, start.scale, zero, free);
    const at::Tensor difference = x - decode(codes, start.scale, zero);
    const at::Tensor size = difference.abs();
    const at::Tensor shrunk = difference.sign() * (size - size.clamp_min(1e-8).pow(spec.hqq_norm - 1) / beta).clamp_min_(0);
    zero = (codes - (x - shrunk) / start.scale).mean(1, true);
    beta *= spec.hqq_kappa;
    const at::Tensor candidate = store_zero(zero, spec);
    const at::Tensor error = error_of(candidate);
    const at::Tensor better = error < best_error;
    best = at::where(better, candidate, best);
    best_error = at::where(better, error, best_error);
  }
  return {start.scale, best};
}

void refuse_non_finite(const at::Tensor& units) {
  if (!units.isfinite().all().item<bool>()) throw InputError("weights hold NaN or infinity");
}

// A grid by search, in slices of units that stay in the cache, since a search passes over them many times. search(units, index of
// the first).
template <class Search>
ScaleZero searched(const at::Tensor& weight, const QuantSpec& spec, const Search& search) {
  const at::Tensor units = to_units(weight.to(at::kFloat), spec);
  const int64_t step = std::max<int64_t>(1, (int64_t{1} << 17) / units.size(1));
  std::vector<at::Tensor> scales, zeros;
  for (int64_t at = 0; at < units.size(0); at += step) {
    const at::Tensor slice = units.slice(0, at, std::min(at + step, units.size(0)));
    refuse_non_finite(slice);
    const ScaleZero grid = search(slice, at);
    scales.push_back(grid.scale);
    if (grid.zero.defined()) zeros.push_back(grid.zero);
  }
  const int64_t out = weight.size(0), in = weight.size(1);
  return {unit_grid(at::cat(scales), spec, out, in), zeros.empty() ? at::Tensor() : unit_grid(at::cat(zeros), spec, out, in)};
}

}  // namespace

std::pair<int, int> code_bounds(const QuantSpec& spec) {
  const int half = 1 << (spec.type.bits - 1);
  return {spec.symmetric && spec.narrow_range ? -(half - 1) : -half, half - 1};
}

Range min_max(const at::Tensor& weight, const QuantSpec& spec) {
  const at::Tensor units = to_units(weight.to(at::kFloat), spec);
  const at::Tensor low = units.amin(1), high = units.amax(1);
  refuse_non_finite(low);  // NaN passes through both, infinity through one
  refuse_non_finite(high);
  return {unit_grid(low, spec, weight.size(0), weight.size(1)), unit_grid(high, spec, weight.size(0), weight.size(1))};
}

ScaleZero scale_zero(const Range& range, const QuantSpec& spec) { return grid_of(range.low, range.high, spec); }

ScaleZero find_grid(const at::Tensor& weight, const QuantSpec& spec, const Control& control) {
  if (spec.range == RangeMethod::mse) return searched(weight, spec, [&](const at::Tensor& units, int64_t) { return mse_grid(units, spec, control); });
  const Range whole = min_max(weight, spec);
  return spec.range == RangeMethod::hqq ? hqq_grid(weight, spec, whole, control) : scale_zero(whole, spec);
}

ScaleZero hqq_grid(const at::Tensor& weight, const QuantSpec& spec, const Range& range, const Control& control) {
  const ScaleZero start = scale_zero(range, spec);
  const at::Tensor scale = unit_column(start.scale), zero = unit_column(start.zero);
  return searched(weight, spec, [&](const at::Tensor& units, int64_t first) {
    const int64_t end = first + units.size(0);
    return hqq_grid(units, {scale.slice(0, first, end), zero.slice(0, first, end)}, spec, control);
  });
}

QuantizedWeight quantize(const at::Tensor& weight, const QuantSpec& spec, const Control& control) {
  return quantize(weight, spec, find_grid(weight, spec, control));
}

QuantizedWeight quantize(const at::Tensor& weight, const QuantSpec& spec, const ScaleZero& grid) {
  const int64_t out = weight.size(0), in = weight.size(1);
  const at::Tensor units = to_units(weight.to(at::kFloat), spec);
  const at::Tensor codes = encode(units, unit_column(grid.scale), has_zero(spec) ? unit_column(grid.zero) : at::Tensor(), spec);
  return {spec, from_units(is_integer(spec) ? codes.to(at::kChar) : codes, spec, out, in), grid};
}

at::Tensor QuantizedWeight::dequantize() const {
  at::Tensor units = to_units(codes.to(at::kFloat, false, /*copy=*/true), spec);
  if (grid.zero.defined()) units.sub_(unit_column(grid.zero));
  at::Tensor weight = from_units(units.mul_(unit_column(grid.scale)), spec, codes.size(0), codes.size(1));
  if (columns.defined()) weight.index_copy_(1, columns, column_values);
  if (outliers.defined()) weight.view({-1}).index_copy_(0, outliers, outlier_values);
  return weight;
}

double bits_per_weight(const QuantizedWeight& weight) {
  const int64_t out = weight.codes.size(0), in = weight.codes.size(1);
  const auto all = static_cast<double>(out * in);
  double bits = bits_per_weight(weight.spec, out, in);
  if (weight.grid_bits) bits = weight.spec.type.bits + *weight.grid_bits;
  if (weight.columns.defined()) {
    const double share = static_cast<double>(weight.columns.numel()) / static_cast<double>(in);
    // Only the codes become fewer: a group that lost some of its columns keeps its scale.
    bits += (16 - weight.spec.type.bits) * share + 32 * static_cast<double>(weight.columns.numel()) / all;
  }
  if (weight.outliers.defined()) bits += (32 * static_cast<double>(weight.outliers.numel()) + 32 * static_cast<double>(out)) / all;
  return bits;
}

at::Tensor fake_quantize(const at::Tensor& x, const QuantSpec& spec) {
  const int64_t rows = x.size(0), features = x.size(1);
  const int64_t width = spec.granularity == Granularity::tensor ? rows * features
                        : spec.granularity == Granularity::group ? spec.group_size
                        : spec.granularity == Granularity::head  ? features / spec.heads
                                                                 : features;
  const at::Tensor units = x.to(at::kFloat).reshape({-1, width});
  const ScaleZero grid = grid_of(units.amin(1, true), units.amax(1, true), spec);
  return decode(encode(units, grid.scale, grid.zero, spec), grid.scale, grid.zero).reshape(x.sizes()).to(x.scalar_type());
}

}  // namespace qb
