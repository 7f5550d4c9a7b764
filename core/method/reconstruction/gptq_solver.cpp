#include "core/method/reconstruction/gptq_solver.h"

#include "core/method/reconstruction/column_rounder.h"
#include "core/quant/units.h"

namespace qb {
namespace {

constexpr int kAttempts = 4;
constexpr int64_t kPanel = 128;  // rows at a time where a large matrix is made or turned

// Wᵀ [in, out] with its rows in the order of the steps.
at::Tensor by_steps(const at::Tensor& weight, const at::Tensor& order) {
  at::Tensor steps = at::empty({weight.size(1), weight.size(0)}, weight.options());
  for (int64_t begin = 0; begin < weight.size(0); begin += kPanel) {
    const int64_t end = std::min(begin + kPanel, weight.size(0));
    steps.slice(1, begin, end).copy_(weight.slice(0, begin, end).index_select(1, order).t());
  }
  return steps;
}

class Solver {
 public:
  Solver(const at::Tensor& weight, const GptqFactor& factor, const QuantSpec& spec, const GptqOptions& options, const Control& control)
      : factor_(factor), spec_(spec), options_(options), control_(control), in_(weight.size(1)), width_(grid_width(spec, in_)), tensor_factor_(tensor_factor(weight, spec)),
        work_(by_steps(weight, factor.order)), rounder_(spec, weight.size(0), factor.order) {}

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
      loss += round(begin, end);
      begin = end;
    }
    if (factor_.kept > 0) rounder_.clear(rounded);
    GptqResult result{rounder_.weight(), loss};
    if (factor_.kept > 0) {
      const auto [columns, order] = at::sort(factor_.order.slice(0, rounded));
      result.weight.columns = columns;
      result.weight.column_values = float_columns(rounded, result.loss).index_select(0, order).t().to(at::kHalf).to(at::kFloat).contiguous();
    }
    return result;
  }

 private:
  // The grid of the group, or of the groups of a super-block, that starts at this step, from its columns as updated so far.
  void grid_at(int64_t begin) {
    at::Tensor group = settled(begin, begin + width_);
    if (pruned_.defined()) group = group.masked_fill(pruned_.slice(0, begin, begin + width_), 0);
    if (spec_.storage == Storage::none) {
      QuantSpec one = spec_;
      if (spec_.granularity == Granularity::group) one.granularity = Granularity::channel;
      rounder_.grid_of(begin, find_grid(group.t().contiguous(), one, control_));
      return;
    }
    // In the order of the columns: the groups of a super-block have their own.
    const at::Tensor steps = factor_.order.slice(0, begin, begin + width_), place = at::argsort(steps);
    const GridHints hints{factor_.importance.index_select(0, steps.index_select(0, place)), tensor_factor_};
    rounder_.grid_of(begin, find_grid(group.index_select(0, place).t().contiguous(), spec_, control_, hints));
  }

  // The columns from this step on, which are not rounded: they make up for the others, and what was pruned of them stays zero and is
  // made up for in those behind. Adds that error to `loss`.
  at::Tensor float_columns(int64_t begin, double& loss) {
    if (!pruned_.defined()) return settled(begin, in_);
    at::Tensor columns = at::empty({in_ - begin, work_.size(1)}, work_.options());
    for (int64_t j = begin; j < in_; ++j) {
      control_.checkpoint();
      const at::Tensor column = updated(j, j + 1), value = column.masked_fill(pruned_.slice(0, j, j + 1), 0);
      columns[j - begin].copy_(value[0]);
      loss += column.sub(value).mul_(factor_.diagonal[j]).square_().sum(at::kDouble).item<double>();
      work_[j].sub_(value[0]).neg_();
    }
    return columns;
  }

  double round(int64_t begin, int64_t end) {
    const at::Tensor before = work_.slice(0, begin, end), diagonal = factor_.diagonal.slice(0, begin, end);
    const at::Tensor slab = updated(begin, end), value = before.clone(), errors = at::empty_like(slab);
    rounder_.round(begin, slab, factor_.upper.slice(0, begin, end).slice(1, begin, end) / diagonal, errors, value);
    before.copy_(errors);
    return slab.sub_(value).mul_(diagonal.unsqueeze(1)).square_().sum(at::kDouble).item<double>();
  }

  // What the steps before `begin` left in these columns of (W − Ŵ)·R, transposed and negated.
  at::Tensor carried(int64_t begin, int64_t end) const {
    return at::mm(factor_.upper.slice(0, 0, begin).slice(1, begin, end).t(), work_.slice(0, 0, begin));
  }

  // Columns that are still to be rounded: each makes up for the steps before `begin`, those in between left as they were.
  at::Tensor updated(int64_t begin, int64_t end) const {
    at::Tensor columns = work_.slice(0, begin, end).clone();
    if (begin > 0) columns.sub_(carried(begin, end).div_(factor_.diagonal.slice(0, begin, end).unsqueeze(1)));
    return columns;
  }

  // The same columns where they make up for those steps together: what they are when none of them gets rounded.
  at::Tensor settled(int64_t begin, int64_t end) const {
    const at::Tensor columns = work_.slice(0, begin, end), corner = factor_.upper.slice(0, begin, end).slice(1, begin, end);
    return begin == 0 ? columns : columns - at::linalg_solve_triangular(corner.t(), carried(begin, end), /*upper=*/false);
  }

  const GptqFactor& factor_;
  const QuantSpec& spec_;
  const GptqOptions& options_;
  const Control& control_;
  int64_t in_, width_;
  at::Tensor tensor_factor_;
  at::Tensor work_;    // [in, out] in the order of the steps: Ŵ − W where rounded, W where not yet
  at::Tensor pruned_;  // [in, out] bool: what stays zero
  ColumnRounder rounder_;
};

// Both axes of a square matrix reversed, in its own memory.
void turn(const at::Tensor& matrix) {
  const int64_t n = matrix.size(0), half = n / 2;
  for (int64_t begin = 0; begin < half; begin += kPanel) {
    const int64_t end = std::min(begin + kPanel, half);
    const at::Tensor top = matrix.slice(0, begin, end), bottom = matrix.slice(0, n - end, n - begin), held = top.flip({0, 1});
    top.copy_(bottom.flip({0, 1}));
    bottom.copy_(held);
  }
  if (n % 2 == 1) matrix[half].copy_(matrix[half].flip(0));
}

// R in the matrix that it was made of: the mirror of the lower factor of the mirrored matrix. Undefined where there is none.
at::Tensor factorized(const at::Tensor& gram, const at::Tensor& order, const at::Tensor& diagonal, double shrinkage) {
  const int64_t in = gram.size(0);
  const at::Tensor mirrored = order.flip(0);
  at::Tensor matrix = at::empty({in, in}, diagonal.options());
  for (int64_t begin = 0; begin < in; begin += kPanel) {
    const int64_t end = std::min(begin + kPanel, in);
    at::Tensor rows = matrix.slice(0, begin, end);
    at::index_select_out(rows, gram.index_select(0, mirrored.slice(0, begin, end)).to(at::kFloat), 1, mirrored);
    if (shrinkage > 0) rows.mul_(1 - shrinkage);
  }
  matrix.diagonal().copy_(diagonal.index_select(0, mirrored));
  // LAPACK's upper factor of a matrix by columns is the lower factor by rows: ATen then works where the matrix is.
  at::Tensor columns = matrix.t(), info = at::empty({0}, order.options().dtype(at::kInt));
  at::linalg_cholesky_ex_out(columns, info, columns, /*upper=*/true);
  // A row that is not finite leaves no positive pivot of its own.
  if (info.item<int64_t>() != 0 || !matrix.diagonal().reciprocal().isfinite().all().item<bool>()) return {};
  turn(matrix);
  return matrix;
}

}  // namespace

std::optional<GptqFactor> gptq_factor(const at::Tensor& gram, const GptqOptions& options, int64_t group, const at::Tensor& kept) {
  const int64_t in = gram.size(0);
  GptqFactor factor;
  at::Tensor diagonal = gram.diagonal().to(at::kFloat, false, true);
  const at::Tensor dead = diagonal <= 0;
  factor.dead = dead.sum().item<int64_t>();
  factor.importance = diagonal.clone();
  diagonal.masked_fill_(dead, 1);
  if (!options.act_order) {
    factor.order = at::arange(in, gram.options().dtype(at::kLong));
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
  const double mean = diagonal.mean(at::kDouble).item<double>();
  double damping = options.damping;
  for (int attempt = 1; attempt <= kAttempts; ++attempt, damping = std::max(damping * 10, 1e-4)) {
    const at::Tensor upper = factorized(gram, factor.order, diagonal + damping * mean, options.shrinkage);
    if (!upper.defined()) continue;
    factor.upper = upper;
    factor.diagonal = upper.diagonal().clone();
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
    solver.grids(range ? scale_zero(*range, spec) : find_grid(rounded, spec, control, {factor.importance, {}}));
  }
  return solver.run(fixed);
}

}  // namespace qb
