#include "core/method/reconstruction/gptq_solver.h"

#include <ATen/Parallel.h>

#include "core/method/reconstruction/column_kernel.h"
#include "core/quant/units.h"

namespace qb {
namespace {

constexpr int kAttempts = 4;

// Per-unit values [rows, cols] → [units along the columns, out], a row for each unit that a column can be in.
at::Tensor by_columns(const at::Tensor& grid, const QuantSpec& spec, int64_t out) {
  if (!grid.defined()) return {};
  at::Tensor rows = grid;  // [1 | out | heads | blocks, units]
  if (spec.granularity == Granularity::head) rows = grid.repeat_interleave(out / spec.heads, 0);
  if (spec.granularity == Granularity::block) rows = grid.repeat_interleave(spec.block_rows, 0).slice(0, 0, out);
  if (rows.size(0) == 1) rows = rows.expand({out, rows.size(1)});
  return rows.t().contiguous();
}

int64_t unit_width(const QuantSpec& spec, int64_t in) {
  if (spec.granularity == Granularity::group) return spec.group_size;
  if (spec.granularity == Granularity::block) return spec.block_cols;
  return in;
}

class Solver {
 public:
  Solver(const at::Tensor& weight, const GptqFactor& factor, const QuantSpec& spec, const GptqOptions& options, const Control& control)
      : factor_(factor), spec_(spec), options_(options), control_(control), out_(weight.size(0)), in_(weight.size(1)), width_(unit_width(spec, in_)),
        work_(weight.index_select(1, factor.order).t().contiguous()), integer_(spec.type.kind == NumberType::Kind::integer),
        units_(factor.order.to(at::kCPU).div(width_, "floor").contiguous()) {
    codes_ = at::empty({in_, out_}, work_.options().dtype(integer_ ? at::kChar : at::kFloat));
  }

  // Grids known beforehand.
  void grids(const ScaleZero& grid) {
    grid_ = grid;
    scale_ = by_columns(grid.scale, spec_, out_);
    zero_ = by_columns(grid.zero, spec_, out_);
  }

  void keep(const at::Tensor& kept) { kept_ = kept.index_select(1, factor_.order).t().contiguous(); }

  GptqResult run(bool fixed) {
    // Without fixed grids a slab must not reach beyond its group: the group's grid is made of the weights at its start.
    const int64_t step = fixed ? options_.block_size : std::min(options_.block_size, width_);
    const int64_t rounded = in_ - factor_.kept;
    for (int64_t begin = 0; begin < rounded;) {
      control_.checkpoint();
      int64_t end = std::min(begin + step, rounded);
      if (!fixed) {
        if (begin % width_ == 0) grid_at(begin);
        end = std::min(end, (begin / width_ + 1) * width_);
      }
      const at::Tensor upper = factor_.upper.slice(0, begin, end);
      const at::Tensor errors = at::empty({end - begin, out_}, work_.options());
      integer_ && work_.is_cpu() ? round_on_cpu(begin, end, errors) : round_by_operations(begin, end, errors);
      if (end < in_) work_.slice(0, end).addmm_(upper.slice(1, end).t(), errors, 1, -1);
      begin = end;
    }
    if (factor_.kept > 0) {
      at::Tensor codes = codes_.slice(0, rounded);
      zero_.defined() ? codes.copy_(zero_.index_select(0, units_.slice(0, rounded))) : codes.zero_();
    }
    const at::Tensor back = at::argsort(factor_.order);
    GptqResult result{{spec_, codes_.index_select(0, back).t().contiguous(), grid_}, loss_};
    if (factor_.kept > 0) {
      const auto [columns, order] = at::sort(factor_.order.slice(0, rounded));
      result.weight.columns = columns;
      result.weight.column_values = work_.slice(0, rounded).index_select(0, order).t().to(at::kHalf).to(at::kFloat).contiguous();
    }
    return result;
  }

 private:
  // The grid of the group that starts at this step, from its columns as updated so far.
  void grid_at(int64_t begin) {
    if (!scale_.defined()) {
      const auto [rows, cols] = unit_shape(spec_, out_, in_);
      grid_.scale = at::empty({rows, cols}, work_.options());
      scale_ = at::empty({cols, out_}, work_.options());
    }
    QuantSpec one = spec_;
    if (spec_.granularity == Granularity::group) one.granularity = Granularity::channel;
    const ScaleZero grid = find_grid(work_.slice(0, begin, begin + width_).t().contiguous(), one, control_);
    const int64_t unit = spec_.granularity == Granularity::group ? units_.const_data_ptr<int64_t>()[begin] : 0;
    auto store = [&](at::Tensor& all, at::Tensor& columns, const at::Tensor& value) {
      if (!value.defined()) return;
      if (!all.defined()) all = at::empty_like(grid_.scale);
      if (!columns.defined()) columns = at::empty_like(scale_);
      all.narrow(1, unit, 1).copy_(value);
      columns.narrow(0, unit, 1).copy_(by_columns(value, one, out_));
    };
    store(grid_.scale, scale_, grid.scale);
    store(grid_.zero, zero_, grid.zero);
  }

  void round_on_cpu(int64_t begin, int64_t end, const at::Tensor& errors) {
    const auto [low, high] = code_bounds(spec_);
    ColumnSlab whole;
    whole.columns = end - begin;
    whole.row_stride = out_;
    whole.factor = factor_.upper.const_data_ptr<float>() + begin * in_ + begin;
    whole.factor_stride = in_;
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
        ColumnSlab slab = whole;
        slab.rows = std::min(kRows, out_ - row);
        slab.weight = work_.data_ptr<float>() + begin * out_ + row;
        slab.error = errors.data_ptr<float>() + row;
        slab.codes = codes_.data_ptr<int8_t>() + begin * out_ + row;
        slab.scale = scale_.const_data_ptr<float>() + row;
        slab.zero = zero_.defined() ? zero_.const_data_ptr<float>() + row : nullptr;
        slab.kept = kept_.defined() ? kept_.const_data_ptr<bool>() + begin * out_ + row : nullptr;
        losses[static_cast<size_t>(tile)] = round_columns(slab);
      }
    });
    for (double loss : losses) loss_ += loss;
  }

  // Float formats, and other devices: the same steps, a column an operation.
  void round_by_operations(int64_t begin, int64_t end, const at::Tensor& errors) {
    const auto [low, high] = integer_ ? code_bounds(spec_) : std::pair{0, 0};
    at::Tensor slab = work_.slice(0, begin, end);
    const at::Tensor upper = factor_.upper.slice(0, begin, end).slice(1, begin, end);
    const at::Tensor diagonal = upper.diagonal().to(at::kCPU).contiguous();
    for (int64_t j = 0; j < end - begin; ++j) {
      const int64_t unit = units_.const_data_ptr<int64_t>()[begin + j];
      const at::Tensor column = slab[j], scale = scale_[unit];
      at::Tensor code = column / scale, value;
      if (!integer_) {
        code = round_to_float(code, spec_.type);
        value = code * scale;
      } else if (zero_.defined()) {
        code = code.add_(zero_[unit]).round_().clamp_(low, high);
        value = (code - zero_[unit]).mul_(scale);
      } else {
        code = code.round_().clamp_(low, high);
        value = code * scale;
      }
      if (kept_.defined()) {
        const at::Tensor pruned = kept_[begin + j].logical_not();
        code = zero_.defined() ? at::where(pruned, zero_[unit], code) : code.masked_fill(pruned, 0);
        value = value.masked_fill(pruned, 0);
      }
      codes_[begin + j].copy_(code);
      const at::Tensor error = (column - value).div_(diagonal.const_data_ptr<float>()[j]);
      errors[j].copy_(error);
      if (j + 1 < end - begin) slab.slice(0, j + 1).addr_(upper[j].slice(0, j + 1), error, 1, -1);
    }
    loss_ += errors.square().sum(at::kDouble).item<double>();
  }

  const GptqFactor& factor_;
  const QuantSpec& spec_;
  const GptqOptions& options_;
  const Control& control_;
  int64_t out_, in_, width_;
  at::Tensor work_;   // [in, out] in the order of the steps
  bool integer_;
  at::Tensor units_;  // [in] int64: the unit of the column at each step
  at::Tensor codes_, scale_, zero_, kept_;
  ScaleZero grid_;
  double loss_ = 0;
};

}  // namespace

std::optional<GptqFactor> gptq_factor(const at::Tensor& gram, const GptqOptions& options, int64_t group, const at::Tensor& kept) {
  const int64_t in = gram.size(0);
  GptqFactor factor;
  at::Tensor h = gram.to(at::kFloat, false, true);
  at::Tensor diagonal = h.diagonal();
  const at::Tensor dead = diagonal <= 0;
  factor.dead = dead.sum().item<int64_t>();
  diagonal.masked_fill_(dead, 1);
  if (!options.act_order) {
    factor.order = at::arange(in, h.options().dtype(at::kLong));
  } else if (options.static_groups || group <= 0) {
    factor.order = at::argsort(diagonal, /*stable=*/true, 0, /*descending=*/true);
  } else {
    // Whole groups by their largest input, columns by theirs inside: a grid is complete before the next begins.
    const at::Tensor members = diagonal.view({-1, group});
    const at::Tensor inner = at::argsort(members, true, 1, true), outer = at::argsort(members.amax(1), true, 0, true);
    factor.order = (inner + at::arange(0, in, group, inner.options()).unsqueeze(1)).index_select(0, outer).reshape({-1});
  }
  if (kept.defined() && kept.numel() > 0) {
    const at::Tensor last = at::isin(factor.order, kept);
    factor.order = at::cat({factor.order.masked_select(last.logical_not()), factor.order.masked_select(last)});
    factor.kept = kept.numel();
  }
  if (options.act_order || factor.kept > 0) h = h.index_select(0, factor.order).index_select(1, factor.order);
  // With the order reversed, the lower factor's mirror is an upper R with H = RRᵀ, and its inverse is U: one factorization.
  const at::Tensor mirrored = h.flip({0, 1});
  const double mean = h.diagonal().mean(at::kDouble).item<double>();
  double damping = options.damping;
  for (int attempt = 1; attempt <= kAttempts; ++attempt, damping = std::max(damping * 10, 1e-4)) {
    at::Tensor damped = mirrored.clone();
    damped.diagonal().add_(damping * mean);
    const auto [lower, info] = at::linalg_cholesky_ex(damped);
    if (info.item<int64_t>() != 0) continue;
    const at::Tensor inverse = at::linalg_solve_triangular(lower, at::eye(in, lower.options()), /*upper=*/false);
    if (!inverse.isfinite().all().item<bool>()) continue;
    factor.upper = inverse.flip({0, 1}).contiguous();
    factor.damping = damping;
    factor.attempts = attempt;
    return factor;
  }
  return std::nullopt;
}

GptqResult gptq(const at::Tensor& weight, const GptqFactor& factor, const QuantSpec& spec, const std::optional<Range>& range,
                const at::Tensor& kept, const GptqOptions& options, const Control& control) {
  Solver solver(weight, factor, spec, options, control);
  if (kept.defined()) solver.keep(kept);
  // One grid for columns of several groups, or shared by rows, cannot wait for a group's turn.
  const bool per_group = spec.granularity == Granularity::group || spec.granularity == Granularity::channel;
  const bool fixed = range || options.static_groups || !per_group || factor.kept > 0;
  if (fixed) {
    at::Tensor rounded = weight;
    // Columns that are not rounded do not stretch the grids.
    if (factor.kept > 0) rounded = weight.index_fill(1, factor.order.slice(0, weight.size(1) - factor.kept), 0);
    solver.grids(range ? scale_zero(*range, spec) : find_grid(rounded, spec, control));
  }
  return solver.run(fixed);
}

}  // namespace qb
