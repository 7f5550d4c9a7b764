#include "core/method/reconstruction/gptq_solver.h"

#include "core/method/reconstruction/column_rounder.h"
#include "core/quant/units.h"

namespace qb {
namespace {

constexpr int kAttempts = 4;

class Solver {
 public:
  Solver(const at::Tensor& weight, const GptqFactor& factor, const QuantSpec& spec, const GptqOptions& options, const Control& control)
      : factor_(factor), spec_(spec), options_(options), control_(control), in_(weight.size(1)), width_(unit_width(spec, in_)),
        work_(weight.index_select(1, factor.order).t().contiguous()), rounder_(spec, weight.size(0), factor.order) {}

  void grids(const ScaleZero& grid) { rounder_.grids(grid); }
  void keep(const at::Tensor& kept) {
    rounder_.keep(kept);
    pruned_ = kept.logical_not().index_select(1, factor_.order).t().contiguous();
  }

  GptqResult run(bool fixed) {
    // Without fixed grids a slab must not reach beyond its group: the group's grid is made of the weights at its start.
    const int64_t step = fixed ? options_.block_size : std::min(options_.block_size, width_);
    const int64_t rounded = in_ - factor_.kept;
    double loss = 0;
    for (int64_t begin = 0; begin < rounded;) {
      control_.checkpoint();
      int64_t end = std::min(begin + step, rounded);
      if (!fixed) {
        if (begin % width_ == 0) grid_at(begin);
        end = std::min(end, (begin / width_ + 1) * width_);
      }
      const at::Tensor upper = factor_.upper.slice(0, begin, end);
      const at::Tensor errors = at::empty({end - begin, work_.size(1)}, work_.options());
      loss += rounder_.round(begin, work_.slice(0, begin, end), upper.slice(1, begin, end), errors);
      if (end < in_) work_.slice(0, end).addmm_(upper.slice(1, end).t(), errors, 1, -1);
      begin = end;
    }
    if (factor_.kept > 0) rounder_.clear(rounded);
    if (pruned_.defined()) loss += prune(rounded);
    GptqResult result{rounder_.weight(), loss};
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
    QuantSpec one = spec_;
    if (spec_.granularity == Granularity::group) one.granularity = Granularity::channel;
    at::Tensor group = work_.slice(0, begin, begin + width_);
    if (pruned_.defined()) group = group.masked_fill(pruned_.slice(0, begin, begin + width_), 0);
    rounder_.grid_of(begin, find_grid(group.t().contiguous(), one, control_));
  }

  // Zero where the columns from this step on, which are not rounded, were pruned; made up for in the columns behind. Returns Σ error².
  double prune(int64_t begin) {
    double loss = 0;
    for (int64_t j = begin; j < in_; ++j) {
      control_.checkpoint();
      at::Tensor column = work_[j];
      const at::Tensor error = column.masked_fill(pruned_[j].logical_not(), 0).div_(factor_.upper[j][j]);
      column.masked_fill_(pruned_[j], 0);
      loss += error.square().sum(at::kDouble).item<double>();
      if (j + 1 < in_) work_.slice(0, j + 1).addr_(factor_.upper[j].slice(0, j + 1), error, 1, -1);
    }
    return loss;
  }

  const GptqFactor& factor_;
  const QuantSpec& spec_;
  const GptqOptions& options_;
  const Control& control_;
  int64_t in_, width_;
  at::Tensor work_;    // [in, out] in the order of the steps
  at::Tensor pruned_;  // the same for what stays zero
  ColumnRounder rounder_;
};

}  // namespace

at::Tensor shrunk_gram(const at::Tensor& gram, double shrinkage) {
  if (shrinkage <= 0) return gram;
  at::Tensor shrunk = gram * (1 - shrinkage);
  shrunk.diagonal().copy_(gram.diagonal());
  return shrunk;
}

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
