#include "core/quant/quantizer.h"

#include <fmt/format.h>

#include <cmath>

#include "core/base/error.h"
#include "core/format/iq4_nl.h"
#include "core/quant/grid_search.h"
#include "core/quant/units.h"

namespace qb {

at::Tensor round_to_scale_type(const at::Tensor& values, ScaleType type) {
  switch (type) {
    case ScaleType::f32: break;
    case ScaleType::f16: return values.to(at::kHalf).to(at::kFloat);
    case ScaleType::bf16: return values.to(at::kBFloat16).to(at::kFloat);
    case ScaleType::e8m0:
    case ScaleType::e4m3: throw InternalError("scales of a storage type are made with their grid");
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
  at::Tensor q = x / scale;
  // The zero point is added before rounding: ties then fall as in compressed-tensors.
  if (zero.defined()) q.add_(zero);
  return nearest_code(q, spec);
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
  ScaleZero grid = start;
  grid.zero = best;
  return grid;
}

void refuse_non_finite(const at::Tensor& units) {
  if (!units.isfinite().all().item<bool>()) throw InputError("weights hold NaN or infinity");
}

// Values of the lowest and highest code.
std::pair<double, double> code_limits(const QuantSpec& spec) {
  if (!is_integer(spec)) return {-float_max(spec.type), float_max(spec.type)};
  if (spec.storage == Storage::iq4_nl) return {kIq4Levels[0], kIq4Levels[15]};
  const auto [low, high] = code_bounds(spec);
  return {low, high};
}

// The arrays that grids of a storage type are made in.
struct StoredGrid {
  int64_t rows, columns;
  bool of_tensor;  // super is one factor for all
  at::Tensor scale, minimum, super, super_minimum;

  StoredGrid(int64_t of_rows, int64_t of_columns, const QuantSpec& spec, const at::Tensor& factor)
      : rows(of_rows), columns(of_columns), of_tensor(spec.storage == Storage::nvfp4) {
    const StorageInfo& info = info_of(spec.storage);
    scale = at::empty({rows, columns / info.group}, at::kFloat);
    if (info.minimum) minimum = at::empty_like(scale);
    if (info.super > 0) super = at::empty({rows, columns / info.super}, at::kFloat);
    if (info.super > 0 && info.minimum) super_minimum = at::empty_like(super);
    if (of_tensor) super = factor.defined() ? factor.to(at::kCPU, at::kFloat) : at::ones({1, 1}, at::kFloat);
  }

  GridSearch arrays() const {
    GridSearch s;
    s.rows = rows;
    s.columns = columns;
    s.scale = scale.data_ptr<float>();
    if (minimum.defined()) s.minimum = minimum.data_ptr<float>();
    if (super_minimum.defined()) s.super_minimum = super_minimum.data_ptr<float>();
    if (super.defined()) s.super = super.data_ptr<float>();
    if (of_tensor) s.factor = super.item<float>();
    return s;
  }

  ScaleZero made(const QuantSpec& spec, const at::Device& device) const {
    for (const at::Tensor& part : {scale, minimum})
      if (part.defined() && !part.isfinite().all().item<bool>())
        throw InputError(fmt::format("a scale or minimum is above 65504 and overflows float16, which {} stores it in", type_text(spec)));
    auto there = [&](const at::Tensor& t) { return t.defined() ? t.to(device) : t; };
    ScaleZero grid;
    grid.scale = there(scale);
    grid.minimum = there(minimum);
    grid.super = there(super);
    grid.super_minimum = there(super_minimum);
    derive_zero(grid, spec);
    return grid;
  }
};

ScaleZero found_grid(const at::Tensor& weight, const QuantSpec& spec, const Control& control, const GridHints& hints) {
  const at::Tensor w = weight.to(at::kCPU, at::kFloat).contiguous();
  const at::Tensor importance = hints.importance.defined() ? hints.importance.to(at::kCPU, at::kFloat).contiguous() : at::Tensor();
  StoredGrid grid(w.size(0), w.size(1), spec, hints.factor.defined() ? hints.factor : tensor_factor(w, spec));
  const GridSearch whole = grid.arrays();
  const int64_t step = std::max<int64_t>(16, (int64_t{1} << 18) / whole.columns), units = grid.scale.size(1);
  const int64_t blocks = grid.super.defined() && !grid.of_tensor ? grid.super.size(1) : 0;
  for (int64_t row = 0; row < whole.rows; row += step) {
    control.checkpoint();
    GridSearch part = whole;
    part.rows = std::min(step, whole.rows - row);
    refuse_non_finite(w.slice(0, row, row + part.rows));
    part.weight = w.const_data_ptr<float>() + row * whole.columns;
    if (importance.defined()) part.importance = importance.const_data_ptr<float>();
    part.scale += row * units;
    if (part.minimum) part.minimum += row * units;
    if (part.super) part.super += row * blocks;
    if (part.super_minimum) part.super_minimum += row * blocks;
    search_grids(part, spec.storage);
  }
  return grid.made(spec, weight.device());
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

ScaleZero scale_zero(const Range& range, const QuantSpec& spec) {
  if (spec.storage == Storage::none) return grid_of(range.low, range.high, spec);
  const auto [scale, minimum] = wanted_grid(range.low, range.high, spec);
  return storable_grid(scale, minimum, spec);
}

Range starting_range(const at::Tensor& weight, const QuantSpec& spec, const Control& control, const GridHints& hints) {
  if (spec.storage == Storage::none) return min_max(weight, spec);
  const ScaleZero grid = find_grid(weight, spec, control, hints);
  const auto [low, high] = code_limits(spec);
  if (grid.minimum.defined()) return {grid.minimum, grid.minimum + grid.scale * (high - low)};
  const at::Tensor one = grid.scale * low, other = grid.scale * high;
  return {at::minimum(one, other), at::maximum(one, other)};
}

at::Tensor tensor_factor(const at::Tensor& weight, const QuantSpec& spec) {
  if (spec.storage != Storage::nvfp4) return {};
  const double most = weight.abs().max().item<double>();
  if (!std::isfinite(most)) throw InputError("weights hold NaN or infinity");
  // A power of two: e4m3 times it is exact, also divided by its inverse, as compressed-tensors keeps it. Twice what is needed, so
  // that weights may grow while errors are made up for.
  const double factor = most > 0 ? std::exp2(std::clamp(std::ceil(std::log2(most / (6 * 448))) + 1, -100.0, 100.0)) : 1;
  return at::full({1, 1}, factor, weight.options().dtype(at::kFloat));
}

std::pair<at::Tensor, at::Tensor> wanted_grid(const at::Tensor& low, const at::Tensor& high, const QuantSpec& spec) {
  const auto [first, last] = code_limits(spec);
  if (!spec.symmetric) {
    const at::Tensor minimum = info_of(spec.storage).super > 0 ? low.clamp_max(0) : low;
    return {(at::maximum(high, minimum) - minimum) / (last - first), minimum};
  }
  const at::Tensor up = at::maximum(low / first, high / last);
  if (first == -last) return {up, {}};
  // Codes reach further on one side, which the longer end of the range gets.
  return {at::where(low.neg() >= high, up, at::maximum(high / first * -1, low / last * -1).neg()), {}};
}

ScaleZero storable_grid(const at::Tensor& scale, const at::Tensor& minimum, const QuantSpec& spec, const at::Tensor& factor) {
  StoredGrid grid(scale.size(0), scale.size(1) * spec.group_size, spec, factor);
  grid.scale.copy_(scale);
  if (minimum.defined()) grid.minimum.copy_(minimum);
  if (spec.storage == Storage::nvfp4 && !factor.defined()) {
    const double most = scale.abs().max().item<double>();
    grid.super.fill_(most > 0 ? std::exp2(std::ceil(std::log2(most / 448)) + 1) : 1);
  }
  nearest_grids(grid.arrays(), spec.storage);
  return grid.made(spec, scale.device());
}

void derive_zero(ScaleZero& grid, const QuantSpec& spec) {
  if (grid.minimum.defined()) grid.zero = (grid.minimum / grid.scale).add_(1 << (spec.type.bits - 1)).neg_();
}

at::Tensor nearest_code(const at::Tensor& quotient, const QuantSpec& spec) {
  if (!is_integer(spec)) return round_to_float(quotient, spec.type);
  if (spec.storage == Storage::iq4_nl) {
    std::vector<float> levels(std::begin(kIq4Levels), std::end(kIq4Levels)), middles;
    for (size_t i = 1; i < levels.size(); ++i) middles.push_back((levels[i] + levels[i - 1]) / 2);
    const auto values = at::tensor(levels, quotient.options()), bounds = at::tensor(middles, quotient.options());
    return values.index_select(0, at::bucketize(quotient.contiguous(), bounds).view({-1})).view(quotient.sizes());
  }
  const auto [low, high] = code_bounds(spec);
  return quotient.round().clamp_(low, high);
}

ScaleZero find_grid(const at::Tensor& weight, const QuantSpec& spec, const Control& control, const GridHints& hints) {
  if (spec.storage != Storage::none && spec.range != RangeMethod::hqq) return found_grid(weight, spec, control, hints);
  if (spec.range == RangeMethod::mse) return searched(weight, spec, [&](const at::Tensor& units, int64_t) { return mse_grid(units, spec, control); });
  const Range whole = min_max(weight, spec);
  return spec.range == RangeMethod::hqq ? hqq_grid(weight, spec, whole, control) : scale_zero(whole, spec);
}

ScaleZero hqq_grid(const at::Tensor& weight, const QuantSpec& spec, const Range& range, const Control& control) {
  const ScaleZero start = scale_zero(range, spec);
  const at::Tensor scale = unit_column(start.scale), zero = unit_column(start.zero);
  ScaleZero grid = searched(weight, spec, [&](const at::Tensor& units, int64_t first) {
    const int64_t end = first + units.size(0);
    ScaleZero part;
    part.scale = scale.slice(0, first, end);
    part.zero = zero.slice(0, first, end);
    return hqq_grid(units, part, spec, control);
  });
  if (spec.storage == Storage::none) return grid;
  // The minimum that is nearest to what the zero point stands for.
  return storable_grid(grid.scale, (grid.zero + (1 << (spec.type.bits - 1))).mul_(grid.scale).neg_(), spec);
}

QuantizedWeight quantize(const at::Tensor& weight, const QuantSpec& spec, const Control& control, const GridHints& hints) {
  return quantize(weight, spec, find_grid(weight, spec, control, hints));
}

QuantizedWeight quantize(const at::Tensor& weight, const QuantSpec& spec, const ScaleZero& grid) {
  const int64_t out = weight.size(0), in = weight.size(1);
  const at::Tensor units = to_units(weight.to(at::kFloat), spec);
  const at::Tensor codes = encode(units, unit_column(grid.scale), has_zero(spec) ? unit_column(grid.zero) : at::Tensor(), spec);
  return {spec, from_units(is_integer(spec) ? codes.to(at::kChar) : codes, spec, out, in), grid};
}

at::Tensor QuantizedWeight::dequantize() const {
  at::Tensor units = to_units(codes.to(at::kFloat, false, /*copy=*/true), spec);
  if (grid.minimum.defined())
    units.add_(1 << (spec.type.bits - 1)).mul_(unit_column(grid.scale)).add_(unit_column(grid.minimum));
  else {
    if (grid.zero.defined()) units.sub_(unit_column(grid.zero));
    units.mul_(unit_column(grid.scale));
  }
  at::Tensor weight = from_units(units, spec, codes.size(0), codes.size(1));
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

namespace {

// Scales of groups [n, 1] of microscaling types: the power of two that puts the largest value, rounded to one significant bit more, into the
// type's last binade (compressed-tensors' rule: what would be above 1¾ of it counts as the next).
at::Tensor power_scale(const at::Tensor& largest, const QuantSpec& spec) {
  const auto [mantissa, exponent] = at::frexp(largest);
  const int last = static_cast<int>(std::floor(std::log2(float_max(spec.type))));
  const at::Tensor power = (exponent - 1 - last + (mantissa >= 0.875)).clamp(-127, 127);
  return at::ldexp(at::ones_like(largest), power);
}

// NVFP4's: what e4m3 holds of the wish times `global`, then without it.
at::Tensor local_scale(const at::Tensor& largest, double global) {
  const at::Tensor stored = (largest * global / 6).clamp_max(448).to(at::kFloat8_e4m3fn).to(at::kFloat);
  return at::where(stored == 0, at::full_like(stored, 0.125), stored) / global;
}

at::Tensor fake_quantize_groups(const at::Tensor& x, const QuantSpec& spec, const InputGrid* grid) {
  const at::Tensor units = x.to(at::kFloat).reshape({-1, spec.group_size}), largest = units.abs().amax(1, true);
  const at::Tensor scale = spec.storage == Storage::nvfp4 ? local_scale(largest, grid->scale) : power_scale(largest, spec);
  return decode(encode(units, scale, {}, spec), scale, {}).reshape(x.sizes()).to(x.scalar_type());
}

}  // namespace

at::Tensor fake_quantize(const at::Tensor& x, const QuantSpec& spec) {
  if (spec.storage == Storage::nvfp4) {
    const InputGrid grid = x.numel() == 0 ? InputGrid{} : input_grid(x.min().item<double>(), x.max().item<double>(), spec);
    return fake_quantize_groups(x, spec, &grid);
  }
  if (spec.storage != Storage::none) return fake_quantize_groups(x, spec, nullptr);
  const int64_t rows = x.size(0), features = x.size(1);
  const int64_t width = spec.granularity == Granularity::tensor ? rows * features
                        : spec.granularity == Granularity::group ? spec.group_size
                        : spec.granularity == Granularity::head  ? features / spec.heads
                                                                 : features;
  const at::Tensor units = x.to(at::kFloat).reshape({-1, width});
  const ScaleZero grid = grid_of(units.amin(1, true), units.amax(1, true), spec);
  return decode(encode(units, grid.scale, grid.zero, spec), grid.scale, grid.zero).reshape(x.sizes()).to(x.scalar_type());
}

InputGrid input_grid(double low, double high, const QuantSpec& spec) {
  if (spec.storage == Storage::nvfp4) return {1 / tensor_factor(at::tensor({low, high}, at::kFloat), spec).item<float>(), 0};
  const ScaleZero grid = grid_of(at::full({1}, low, at::kFloat), at::full({1}, high, at::kFloat), spec);
  return {grid.scale.item<float>(), grid.zero.defined() ? grid.zero.item<float>() : 0};
}

at::Tensor fake_quantize(const at::Tensor& x, const QuantSpec& spec, const InputGrid& grid) {
  if (spec.storage == Storage::nvfp4) return fake_quantize_groups(x, spec, &grid);
  const at::Tensor scale = at::full({1}, grid.scale, x.options().dtype(at::kFloat));
  const at::Tensor zero = has_zero(spec) ? at::full({1}, grid.zero, scale.options()) : at::Tensor();
  return decode(encode(x.to(at::kFloat), scale, zero, spec), scale, zero).to(x.scalar_type());
}

at::Tensor fake_quantize_cache(const at::Tensor& x, const QuantSpec& spec, int64_t heads, const std::vector<InputGrid>& grids) {
  if (grids.size() == 1) return fake_quantize(x, spec, grids.front());
  if (grids.empty()) {
    QuantSpec of_heads = spec;
    of_heads.heads = heads;
    return fake_quantize(x.reshape({x.size(0), -1}), of_heads).view(x.sizes());
  }
  std::vector<float> scales, zeros;
  for (const InputGrid& grid : grids) {
    scales.push_back(grid.scale);
    zeros.push_back(grid.zero);
  }
  const auto options = x.options().dtype(at::kFloat);
  const at::Tensor scale = at::tensor(scales).to(options).view({1, heads, 1}), zero = has_zero(spec) ? at::tensor(zeros).to(options).view({1, heads, 1}) : at::Tensor();
  const at::Tensor by_head = x.to(at::kFloat).reshape({x.size(0), heads, -1});
  return decode(encode(by_head, scale, zero, spec), scale, zero).to(x.scalar_type()).view(x.sizes());
}

}  // namespace qb
