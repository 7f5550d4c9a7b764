#include "core/method/reconstruction/column_rounder.h"

#include <ATen/Parallel.h>

#include "core/method/reconstruction/column_kernel.h"
#include "core/quant/units.h"

namespace qb {

ColumnRounder::ColumnRounder(const QuantSpec& spec, int64_t out, const at::Tensor& order)
    : spec_(spec), out_(out), integer_(spec.type.kind == NumberType::Kind::integer), order_(order),
      units_(order.to(at::kCPU).div(unit_width(spec, order.size(0)), "floor").contiguous()),
      codes_(at::empty({order.size(0), out}, order.options().dtype(integer_ ? at::kChar : at::kFloat))) {}

void ColumnRounder::grids(const ScaleZero& grid) {
  grid_ = grid;
  scale_ = units_by_columns(grid.scale, spec_, out_);
  zero_ = units_by_columns(grid.zero, spec_, out_);
}

void ColumnRounder::grid_of(int64_t step, const ScaleZero& grid) {
  const auto [rows, cols] = unit_shape(spec_, out_, order_.size(0));
  const int64_t unit = spec_.granularity == Granularity::group ? units_.const_data_ptr<int64_t>()[step] : 0;
  auto store = [&](at::Tensor& all, at::Tensor& columns, const at::Tensor& value) {
    if (!value.defined()) return;
    if (!all.defined()) {
      all = at::empty({rows, cols}, value.options());
      columns = at::empty({cols, out_}, value.options());
    }
    all.narrow(1, unit, 1).copy_(value);
    columns.narrow(0, unit, 1).copy_(value.t());
  };
  store(grid_.scale, scale_, grid.scale);
  store(grid_.zero, zero_, grid.zero);
}

void ColumnRounder::keep(const at::Tensor& kept) { kept_ = kept.index_select(1, order_).t().contiguous(); }

double ColumnRounder::round(int64_t begin, at::Tensor slab, const at::Tensor& factor, const at::Tensor& errors, const at::Tensor& value) {
  return integer_ && slab.is_cpu() ? round_on_cpu(begin, slab, factor, errors, value) : round_by_operations(begin, slab, factor, errors, value);
}

double ColumnRounder::round_on_cpu(int64_t begin, const at::Tensor& slab, const at::Tensor& factor, const at::Tensor& errors, const at::Tensor& value) {
  const auto [low, high] = code_bounds(spec_);
  ColumnSlab whole;
  whole.columns = slab.size(0);
  whole.row_stride = out_;
  whole.factor = factor.const_data_ptr<float>();
  whole.factor_stride = factor.stride(0);
  whole.unit = units_.const_data_ptr<int64_t>() + begin;
  whole.unit_stride = out_;
  whole.lowest = static_cast<float>(low);
  whole.highest = static_cast<float>(high);
  constexpr int64_t kRows = 32;
  const int64_t tiles = (out_ + kRows - 1) / kRows;
  std::vector<double> losses(static_cast<size_t>(tiles), 0);  // summed in order: the same whatever the threads
  at::parallel_for(0, tiles, 1, [&](int64_t first, int64_t last) {
    for (int64_t tile = first; tile < last; ++tile) {
      const int64_t row = tile * kRows;
      ColumnSlab part = whole;
      part.rows = std::min(kRows, out_ - row);
      part.weight = slab.data_ptr<float>() + row;
      part.error = errors.data_ptr<float>() + row;
      part.value = value.defined() ? value.data_ptr<float>() + row : nullptr;
      part.codes = codes_.data_ptr<int8_t>() + begin * out_ + row;
      part.scale = scale_.const_data_ptr<float>() + row;
      part.zero = zero_.defined() ? zero_.const_data_ptr<float>() + row : nullptr;
      part.kept = kept_.defined() ? kept_.const_data_ptr<bool>() + begin * out_ + row : nullptr;
      losses[static_cast<size_t>(tile)] = round_columns(part);
    }
  });
  double loss = 0;
  for (double l : losses) loss += l;
  return loss;
}

double ColumnRounder::round_by_operations(int64_t begin, at::Tensor& slab, const at::Tensor& factor, const at::Tensor& errors, const at::Tensor& value) {
  const auto [low, high] = integer_ ? code_bounds(spec_) : std::pair{0, 0};
  const int64_t columns = slab.size(0);
  const at::Tensor diagonal = factor.diagonal().to(at::kCPU).contiguous();
  for (int64_t j = 0; j < columns; ++j) {
    const int64_t unit = units_.const_data_ptr<int64_t>()[begin + j];
    const at::Tensor column = slab[j], scale = scale_[unit];
    at::Tensor code = column / scale, rounded;
    if (!integer_) {
      code = round_to_float(code, spec_.type);
      rounded = code * scale;
    } else if (zero_.defined()) {
      code = code.add_(zero_[unit]).round_().clamp_(low, high);
      rounded = (code - zero_[unit]).mul_(scale);
    } else {
      code = code.round_().clamp_(low, high);
      rounded = code * scale;
    }
    if (kept_.defined()) {
      const at::Tensor pruned = kept_[begin + j].logical_not();
      code = zero_.defined() ? at::where(pruned, zero_[unit], code) : code.masked_fill(pruned, 0);
      rounded = rounded.masked_fill(pruned, 0);
    }
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
  return errors.square().sum(at::kDouble).item<double>();
}

void ColumnRounder::clear(int64_t begin) {
  at::Tensor codes = codes_.slice(0, begin);
  zero_.defined() ? codes.copy_(zero_.index_select(0, units_.slice(0, begin).to(zero_.device()))) : codes.zero_();
}

QuantizedWeight ColumnRounder::weight() const {
  return {spec_, codes_.index_select(0, at::argsort(order_)).t().contiguous(), grid_};
}

}  // namespace qb
