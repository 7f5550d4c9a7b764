#include "core/method/reconstruction/column_rounder.h"

#include <ATen/Parallel.h>
#include <c10/core/DeviceGuard.h>

#include "core/base/error.h"
#include "core/format/iq4_nl.h"
#include "core/method/reconstruction/column_kernel_cuda.h"
#include "core/quant/units.h"

namespace qb {

ColumnRounder::ColumnRounder(const QuantSpec& spec, int64_t out, const at::Tensor& order)
    : spec_(spec), out_(out), integer_(spec.type.kind == NumberType::Kind::integer), order_(order),
      units_(order.to(at::kCPU).div(unit_width(spec, order.size(0)), "floor").contiguous()),
      device_units_(units_.to(order.device())),
      codes_(at::empty({order.size(0), out}, order.options().dtype(integer_ ? at::kChar : at::kFloat))) {}

void ColumnRounder::grids(const ScaleZero& grid) {
  grid_ = grid;
  scale_ = units_by_columns(grid.scale, spec_, out_);
  zero_ = units_by_columns(grid.zero, spec_, out_);
}

void ColumnRounder::grid_of(int64_t step, const ScaleZero& grid) {
  const int64_t in = order_.size(0), units = unit_shape(spec_, out_, in).second, turns = units / grid.scale.size(1);
  const int64_t which = spec_.granularity == Granularity::group ? units_.const_data_ptr<int64_t>()[step] / grid.scale.size(1) : 0;
  auto store = [&](at::Tensor& all, const at::Tensor& value) {
    if (!value.defined()) return;
    if (!all.defined()) all = at::empty({out_, value.size(1) * turns}, value.options());
    all.narrow(1, which * value.size(1), value.size(1)).copy_(value);
  };
  auto store_turned = [&](at::Tensor& columns, const at::Tensor& value) {
    if (!value.defined()) return;
    if (!columns.defined()) columns = at::empty({units, out_}, value.options());
    columns.narrow(0, which * value.size(1), value.size(1)).copy_(value.t());
  };
  store(grid_.scale, grid.scale);
  store(grid_.zero, grid.zero);
  store(grid_.minimum, grid.minimum);
  if (spec_.storage == Storage::nvfp4)
    grid_.super = grid.super;  // one of the whole weight
  else
    store(grid_.super, grid.super);
  store(grid_.super_minimum, grid.super_minimum);
  store_turned(scale_, grid.scale);
  store_turned(zero_, grid.zero);
}

void ColumnRounder::keep(const at::Tensor& kept) { kept_ = kept.index_select(1, order_).t().contiguous(); }

double ColumnRounder::round(int64_t begin, at::Tensor slab, const at::Tensor& factor, const at::Tensor& errors, const at::Tensor& value) {
  if (integer_ && slab.is_cpu()) return round_on_cpu(begin, slab, factor, errors, value);
  if (!integer_ || !slab.is_cuda() || !round_on_cuda(begin, slab, factor, errors, value)) round_by_operations(begin, slab, factor, errors, value);
  return errors.square().sum(at::kDouble).item<double>();
}

ColumnSlab ColumnRounder::columns_of(int64_t begin, const at::Tensor& slab, const at::Tensor& factor, const at::Tensor& errors, const at::Tensor& value) {
  const auto [low, high] = code_bounds(spec_);
  ColumnSlab s;
  s.columns = slab.size(0);
  s.rows = s.row_stride = s.unit_stride = out_;
  s.weight = slab.data_ptr<float>();
  s.error = errors.data_ptr<float>();
  s.value = value.defined() ? value.data_ptr<float>() : nullptr;
  s.codes = codes_.data_ptr<int8_t>() + begin * out_;
  s.factor = factor.const_data_ptr<float>();
  s.factor_stride = factor.stride(0);
  s.scale = scale_.const_data_ptr<float>();
  s.zero = zero_.defined() ? zero_.const_data_ptr<float>() : nullptr;
  s.unit = device_units_.const_data_ptr<int64_t>() + begin;
  s.lowest = static_cast<float>(low);
  s.highest = static_cast<float>(high);
  if (spec_.storage == Storage::iq4_nl) s.levels = kIq4Levels;
  s.kept = kept_.defined() ? kept_.const_data_ptr<bool>() + begin * out_ : nullptr;
  return s;
}

bool ColumnRounder::round_on_cuda(int64_t begin, const at::Tensor& slab, const at::Tensor& factor, const at::Tensor& errors, const at::Tensor& value) {
  if (spec_.storage == Storage::iq4_nl) return false;
  const c10::DeviceGuard guard(slab.device());
  const int64_t columns = slab.size(0);
  for (int64_t from = 0; from < columns; from += kCudaColumns) {
    const int64_t to = std::min(from + kCudaColumns, columns);
    const at::Tensor rows = factor.slice(0, from, to), made = errors.slice(0, from, to);
    const at::Tensor improved = value.defined() ? value.slice(0, from, to) : value;
    if (!round_columns_on_cuda(columns_of(begin + from, slab.slice(0, from, to), rows.slice(1, from, to), made, improved))) {
      if (from > 0) throw InternalError("a CUDA kernel that has run does not start again");
      return false;
    }
    if (to < columns) slab.slice(0, to).addmm_(rows.slice(1, to).t(), made, 1, -1);
  }
  return true;
}

double ColumnRounder::round_on_cpu(int64_t begin, const at::Tensor& slab, const at::Tensor& factor, const at::Tensor& errors, const at::Tensor& value) {
  const ColumnSlab whole = columns_of(begin, slab, factor, errors, value);
  constexpr int64_t kRows = 32;
  const int64_t tiles = (out_ + kRows - 1) / kRows;
  std::vector<double> losses(static_cast<size_t>(tiles), 0);  // summed in order: the same whatever the threads
  at::parallel_for(0, tiles, 1, [&](int64_t first, int64_t last) {
    for (int64_t tile = first; tile < last; ++tile) {
      const int64_t row = tile * kRows;
      ColumnSlab part = whole;
      part.rows = std::min(kRows, out_ - row);
      part.weight += row;
      part.error += row;
      part.codes += row;
      part.scale += row;
      if (part.value) part.value += row;
      if (part.zero) part.zero += row;
      if (part.kept) part.kept += row;
      losses[static_cast<size_t>(tile)] = round_columns(part);
    }
  });
  double loss = 0;
  for (double l : losses) loss += l;
  return loss;
}

void ColumnRounder::round_by_operations(int64_t begin, at::Tensor& slab, const at::Tensor& factor, const at::Tensor& errors, const at::Tensor& value) {
  const int64_t columns = slab.size(0);
  const at::Tensor diagonal = factor.diagonal().to(at::kCPU).contiguous();
  for (int64_t j = 0; j < columns; ++j) {
    const int64_t unit = units_.const_data_ptr<int64_t>()[begin + j];
    const at::Tensor column = slab[j], scale = scale_[unit];
    const at::Tensor from = kept_.defined() ? column.masked_fill(kept_[begin + j].logical_not(), 0) : column;
    at::Tensor code = from / scale;
    if (zero_.defined()) code.add_(zero_[unit]);
    code = nearest_code(code, spec_);
    const at::Tensor rounded = zero_.defined() ? (code - zero_[unit]).mul_(scale) : code * scale;
    codes_[begin + j].copy_(code);
    at::Tensor error;
    if (value.defined()) {
      error = rounded - value[j];
      value[j].copy_(rounded);
    } else {
      error = (column - rounded).div_(diagonal.const_data_ptr<float>()[j]);
    }
    errors[j].copy_(error);
    if (j + 1 < columns) slab.slice(0, j + 1).addr_(factor[j].slice(0, j + 1), error, 1, -1);
  }
}

void ColumnRounder::clear(int64_t begin) {
  at::Tensor codes = codes_.slice(0, begin);
  zero_.defined() ? codes.copy_(zero_.index_select(0, units_.slice(0, begin).to(zero_.device())).round_()) : codes.zero_();
}

QuantizedWeight ColumnRounder::weight() const {
  return {spec_, codes_.index_select(0, at::argsort(order_)).t().contiguous(), grid_};
}

}  // namespace qb
