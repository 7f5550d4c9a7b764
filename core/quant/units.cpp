#include "core/quant/units.h"

namespace qb {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

at::Tensor to_units(const at::Tensor& matrix, const QuantSpec& spec) {
  const int64_t out = matrix.size(0), in = matrix.size(1);
  switch (spec.granularity) {
    case Granularity::tensor: return matrix.reshape({1, out * in});
    case Granularity::channel:
    case Granularity::token: return matrix.reshape({out, in});
    case Granularity::group: return matrix.reshape({out * (in / spec.group_size), spec.group_size});
    case Granularity::head: return matrix.reshape({spec.heads, out / spec.heads * in});
    case Granularity::block: break;
  }
  const int64_t rows = ceil_div(out, spec.block_rows), cols = ceil_div(in, spec.block_cols);
  const at::Tensor padded = at::constant_pad_nd(matrix, {0, cols * spec.block_cols - in, 0, rows * spec.block_rows - out});
  return padded.view({rows, spec.block_rows, cols, spec.block_cols}).permute({0, 2, 1, 3}).reshape({rows * cols, spec.block_rows * spec.block_cols});
}

at::Tensor from_units(const at::Tensor& units, const QuantSpec& spec, int64_t out_features, int64_t in_features) {
  if (spec.granularity != Granularity::block) return units.reshape({out_features, in_features});
  const int64_t rows = ceil_div(out_features, spec.block_rows), cols = ceil_div(in_features, spec.block_cols);
  return units.view({rows, cols, spec.block_rows, spec.block_cols})
      .permute({0, 2, 1, 3})
      .reshape({rows * spec.block_rows, cols * spec.block_cols})
      .slice(0, 0, out_features)
      .slice(1, 0, in_features)
      .contiguous();
}

std::pair<int64_t, int64_t> unit_shape(const QuantSpec& spec, int64_t out_features, int64_t in_features) {
  switch (spec.granularity) {
    case Granularity::tensor: return {1, 1};
    case Granularity::channel:
    case Granularity::token: return {out_features, 1};
    case Granularity::group: return {out_features, in_features / spec.group_size};
    case Granularity::head: return {spec.heads, 1};
    case Granularity::block: break;
  }
  return {ceil_div(out_features, spec.block_rows), ceil_div(in_features, spec.block_cols)};
}

at::Tensor unit_grid(const at::Tensor& per_unit, const QuantSpec& spec, int64_t out_features, int64_t in_features) {
  const auto [rows, cols] = unit_shape(spec, out_features, in_features);
  return per_unit.reshape({rows, cols});
}

at::Tensor unit_column(const at::Tensor& grid) { return grid.reshape({-1, 1}); }

at::Tensor units_by_columns(const at::Tensor& grid, const QuantSpec& spec, int64_t out_features) {
  if (!grid.defined()) return {};
  at::Tensor rows = grid;  // [1 | out | heads | blocks, units]
  if (spec.granularity == Granularity::head) rows = grid.repeat_interleave(out_features / spec.heads, 0);
  if (spec.granularity == Granularity::block) rows = grid.repeat_interleave(spec.block_rows, 0).slice(0, 0, out_features);
  if (rows.size(0) == 1) rows = rows.expand({out_features, rows.size(1)});
  return rows.t().contiguous();
}

int64_t unit_width(const QuantSpec& spec, int64_t in_features) {
  if (spec.granularity == Granularity::group) return spec.group_size;
  if (spec.granularity == Granularity::block) return spec.block_cols;
  return in_features;
}

}  // namespace qb
