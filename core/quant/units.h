#pragma once
#include <ATen/ATen.h>

#include <utility>

#include "core/quant/scheme.h"

namespace qb {

// Rows and columns of the documented per-unit tensors of a matrix [out, in].
std::pair<int64_t, int64_t> unit_shape(const QuantSpec& spec, int64_t out_features, int64_t in_features);
// Lays a matrix [out, in] out so that a row is a unit: [units, elements]. Blocks at a ragged edge are padded with zeros.
at::Tensor to_units(const at::Tensor& matrix, const QuantSpec& spec);
// Back from units to [out, in].
at::Tensor from_units(const at::Tensor& units, const QuantSpec& spec, int64_t out_features, int64_t in_features);
// Per-unit [units, 1] → the documented [rows, cols], and back.
at::Tensor unit_grid(const at::Tensor& per_unit, const QuantSpec& spec, int64_t out_features, int64_t in_features);
at::Tensor unit_column(const at::Tensor& grid);
// Per-unit values [rows, cols] → [units along the columns, out], a row for each unit that a column can be in; undefined stays so.
at::Tensor units_by_columns(const at::Tensor& grid, const QuantSpec& spec, int64_t out_features);
// Columns that a unit spans.
int64_t unit_width(const QuantSpec& spec, int64_t in_features);

}  // namespace qb
