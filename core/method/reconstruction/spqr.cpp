#include "core/method/reconstruction/spqr.h"

#include "core/method/groups.h"
#include "core/method/reconstruction/gptq_solver.h"
#include "core/method/reconstruction/rtn.h"

namespace qb {
namespace {

struct Knobs {
  double threshold, damping;
  int64_t grid_bits, grid_group;
  bool simplified;
};

// Statistics of the second level: values [out] in groups along the rows, asymmetric, each group with its own float16 range.
class SecondLevel {
 public:
  SecondLevel(const at::Tensor& values, const Knobs& knobs) : last_(static_cast<double>((1 << knobs.grid_bits) - 1)) {
    const int64_t out = values.size(0), g = knobs.grid_group, padded = (out + g - 1) / g * g;
    const at::Tensor all = at::cat({values, values.slice(0, out - 1).expand({padded - out})}).view({-1, g});
    auto half = [](const at::Tensor& t) { return t.to(at::kHalf).to(at::kFloat); };
    auto of_rows = [&](const at::Tensor& t) { return t.expand({-1, g}).reshape({-1}).slice(0, 0, out); };
    const at::Tensor low = half(all.amin(1, true));
    low_ = of_rows(low), step_ = of_rows(half((all.amax(1, true) - low) / last_).clamp_min(1e-8));
  }
  at::Tensor below(const at::Tensor& values) const { return at((values - low_).div_(step_).floor_()); }
  at::Tensor nearest(const at::Tensor& values) const { return at((values - low_).div_(step_).round_()); }
  const at::Tensor& step() const { return step_; }
  at::Tensor further(const at::Tensor& stored, int64_t steps) const { return at((stored - low_).div_(step_).round_().add_(steps)); }

 private:
  at::Tensor at(at::Tensor codes) const { return codes.clamp_(0, last_).mul_(step_).add_(low_); }
  at::Tensor low_, step_;  // [out]
  double last_;
};

// [out] → the sum over the rows that share a second-level range, at each of them.
at::Tensor sums_of_groups(const at::Tensor& values, const Knobs& knobs) {
  const at::Tensor group = at::arange(values.size(0), values.options().dtype(at::kLong)).div(knobs.grid_group, "floor");
  return at::zeros_like(values).index_add_(0, group, values).index_select(0, group);
}

struct Grid {
  at::Tensor scale, zero;  // [out]
};

at::Tensor codes_on(const at::Tensor& w, const at::Tensor& scale, const at::Tensor& zero, const QuantSpec& spec) {
  const auto [qmin, qmax] = code_bounds(spec);
  at::Tensor q = w / scale;
  if (zero.defined()) q = q + zero;
  return q.round().clamp(qmin, qmax);
}
at::Tensor value_of(const at::Tensor& codes, const at::Tensor& scale, const at::Tensor& zero) { return zero.defined() ? (codes - zero) * scale : codes * scale; }

// The part of a weight that shares a grid: weight, use [out, g], use 1 where a weight is no outlier; d [g] weighs the columns' errors.
struct Group {
  at::Tensor weight, use, d;
  const std::optional<Range>& range;  // that a clip has left
};

struct Bounds {
  at::Tensor low, high;  // [out]
};

Bounds bounds_of(const Group& group) {
  const at::Tensor count = group.use.sum(1, true).clamp_min(1), mean = (group.weight * group.use).sum(1, true) / count;
  const at::Tensor filled = at::where(group.use.to(at::kBool), group.weight, mean);
  at::Tensor low = filled.amin(1), high = filled.amax(1);
  if (group.range) {
    low = at::maximum(low, group.range->low);
    high = at::minimum(high, group.range->high);
  }
  return {low.clamp_max(0), high.clamp_min(0)};  // keeps zero points among the codes
}

// [out]: what a grid costs the weights that are no outliers.
at::Tensor errors_of(const Group& group, const Grid& grid, const QuantSpec& spec) {
  const at::Tensor zero = grid.zero.defined() ? grid.zero.unsqueeze(1) : at::Tensor(), scale = grid.scale.unsqueeze(1);
  return (group.weight - value_of(codes_on(group.weight, scale, zero, spec), scale, zero)).mul_(group.d).square_().mul_(group.use).sum(1);
}

at::Tensor wanted_scale(const Bounds& bounds, const QuantSpec& spec) {
  const auto [qmin, qmax] = code_bounds(spec);
  const at::Tensor width = spec.symmetric ? 2 * at::maximum(bounds.low.abs(), bounds.high.abs()) : bounds.high - bounds.low;
  return (width / static_cast<double>(qmax - qmin)).clamp_min(1e-7);
}

// The range in the middle of the codes, whichever of the two is wider.
at::Tensor wanted_zero(const Bounds& bounds, const at::Tensor& scale, const QuantSpec& spec) {
  const auto [qmin, qmax] = code_bounds(spec);
  const at::Tensor zero = (qmin + qmax) / 2.0 - (bounds.low + bounds.high) / (2 * scale);
  return spec.round_zero_point ? zero.round().clamp(qmin, qmax) : zero;
}

// The group's grid as it will be stored, every statistic at the nearest of its values.
Grid quick_fit(const Group& group, const QuantSpec& spec, const Knobs& knobs) {
  const Bounds bounds = bounds_of(group);
  const at::Tensor scale = wanted_scale(bounds, spec);
  Grid grid{SecondLevel(scale, knobs).nearest(scale).clamp_min(1e-7), {}};
  if (spec.symmetric) return grid;
  grid.zero = wanted_zero(bounds, grid.scale, spec);
  if (!spec.round_zero_point) grid.zero = SecondLevel(grid.zero, knobs).nearest(grid.zero);
  return grid;
}

// Those of two grids that cost less, chosen for all rows of a second-level group together where they share its range.
struct Best {
  Grid grid;
  at::Tensor cost;  // [out]
  void take(const Grid& other, const at::Tensor& other_cost, const at::Tensor& better) {
    grid.scale = at::where(better, other.scale, grid.scale), cost = at::where(better, other_cost, cost);
    if (other.zero.defined()) grid.zero = at::where(better, other.zero, grid.zero);
  }
  void offer(const Group& group, const QuantSpec& spec, const Grid& other) {
    const at::Tensor other_cost = errors_of(group, other, spec);
    if (cost.defined()) return take(other, other_cost, other_cost < cost);
    grid = other, cost = other_cost;
  }
};

// The grid whose statistics are around the nearest and cost least; the ranges of the second level are those of `wanted`. step: of the
// second level's zero points, [out].
Best fit_around(const Group& group, const Bounds& bounds, const at::Tensor& wanted, const QuantSpec& spec, const Knobs& knobs, at::Tensor* step) {
  const SecondLevel scales(wanted, knobs);
  std::vector<at::Tensor> candidates;
  for (int64_t steps = 0; steps < 3; ++steps) candidates.push_back(scales.further(scales.below(wanted), steps).clamp_min(1e-7));
  Best best;
  for (const at::Tensor& scale : candidates) best.offer(group, spec, {scale, spec.symmetric ? at::Tensor() : wanted_zero(bounds, scale, spec)});
  if (spec.symmetric || spec.round_zero_point) return best;
  const SecondLevel zeros(best.grid.zero, knobs);
  *step = zeros.step();
  best = {};
  for (const at::Tensor& scale : candidates) {
    const at::Tensor nearest = zeros.nearest(wanted_zero(bounds, scale, spec));
    for (int64_t steps = -1; steps <= 1; ++steps) best.offer(group, spec, {scale, zeros.further(nearest, steps)});
  }
  return best;
}

// The group's grid as it will be stored. A scale that is rounded down cuts the group's range and one that is rounded up loses
// resolution, a zero point that is rounded pushes one end out: what costs less depends on the codes' number and is tried.
Grid fit(const Group& group, const QuantSpec& spec, const Knobs& knobs) {
  const auto [qmin, qmax] = code_bounds(spec);
  const double codes = static_cast<double>(qmax - qmin);
  const Bounds bounds = bounds_of(group);
  const at::Tensor wanted = wanted_scale(bounds, spec);
  at::Tensor step;
  Best best = fit_around(group, bounds, wanted, spec, knobs, &step);
  if (!step.defined()) return best.grid;
  // With room for a zero point that is half a step off.
  const Best roomy = fit_around(group, bounds, wanted * (codes / (codes - step.clamp_max(codes / 2))), spec, knobs, &step);
  best.take(roomy.grid, roomy.cost, sums_of_groups(roomy.cost, knobs) < sums_of_groups(best.cost, knobs));
  return best.grid;
}

class SpQr final : public Method {
 public:
  explicit SpQr(const Knobs& knobs) : knobs_(knobs) {}
  Statistics needs() const override { return static_cast<Statistics>(Statistic::gram); }
  std::string problem(const LinearInfo&, const std::optional<QuantSpec>& spec) const override { return integer_groups_problem(spec, "spqr"); }

  void apply(BlockWork& work) override {
    for (LinearWork& linear : work.linears) {
      if (!linear.spec) continue;
      work.begin(linear);
      const QuantSpec& spec = *linear.spec;
      std::optional<GptqFactor> factor;
      const GptqOptions options{.act_order = false, .static_groups = false, .damping = knobs_.damping, .block_size = spec.group_size};
      if (const at::Tensor gram = work.gram_of(linear); gram.defined()) factor = gptq_factor(gram, options, spec.group_size);
      if (!factor) {
        linear.tell("no Gram matrix to work with: rounded to nearest");
        round_to_nearest(work, linear);
        continue;
      }
      linear.quantized = solve(linear, *factor, work.control);
    }
  }

 private:
  QuantizedWeight solve(const LinearWork& linear, const GptqFactor& factor, const Control& control) const {
    const at::Tensor &weight = linear.weight, &kept = linear.kept;
    QuantSpec spec = *linear.spec;
    spec.round_zero_point = kept.defined();
    spec.scale_type = ScaleType::f32;  // products of two levels; their storage is counted below
    const int64_t out = weight.size(0), in = weight.size(1), g = spec.group_size;
    at::Tensor w = weight.clone();  // Ŵ − W where rounded, W where not yet
    at::Tensor codes = at::empty_like(w, w.options().dtype(at::kChar)), outliers = at::zeros({out, in}, w.options().dtype(at::kBool));
    at::Tensor values = at::empty_like(w, w.options().dtype(at::kHalf));
    const at::Tensor& diagonal = factor.diagonal;
    // As the original: relative to what a weight's own spread would cost.
    const double cut = knobs_.threshold * (weight.var(at::IntArrayRef{0}, /*correction=*/1) * diagonal.square()).mean(at::kDouble).item<double>();
    ScaleZero grids{at::empty({out, in / g}, w.options()), spec.symmetric ? at::Tensor() : at::empty({out, in / g}, w.options())};
    for (int64_t begin = 0; begin < in; begin += g) {
      control.checkpoint();
      const at::Tensor before = w.slice(1, begin, begin + g), d = diagonal.slice(0, begin, begin + g), rows = factor.upper.slice(1, begin, begin + g);
      const at::Tensor corner = rows.slice(0, begin, begin + g);
      at::Tensor group = before.clone(), settled = group;
      if (begin > 0) {
        // What the groups before left in these columns of (Ŵ − W)·R: made up for by all of them together, or by each when its turn comes.
        const at::Tensor carried = w.slice(1, 0, begin).matmul(rows.slice(0, 0, begin));
        settled = group - at::linalg_solve_triangular(corner, carried, /*upper=*/true, /*left=*/false);
        group = group - carried / d;
      }
      if (kept.defined()) settled = settled * kept.slice(1, begin, begin + g);
      std::optional<Range> range;
      if (linear.range) range = Range{linear.range->low.select(1, begin / g), linear.range->high.select(1, begin / g)};
      const at::Tensor factors = corner / d;
      at::Tensor use = at::ones_like(group);
      if (!knobs_.simplified) use = without_outliers(settled, d, cut, range, spec);
      const Grid grid = fit({settled, use, d, range}, spec, knobs_);
      grids.scale.select(1, begin / g).copy_(grid.scale);
      if (grid.zero.defined()) grids.zero.select(1, begin / g).copy_(grid.zero);
      for (int64_t j = 0; j < g; ++j) {
        const at::Tensor column = group.select(1, j), change = before.select(1, j);
        const at::Tensor q = codes_on(kept.defined() ? column * kept.select(1, begin + j) : column, grid.scale, grid.zero, spec);
        const at::Tensor value = value_of(q, grid.scale, grid.zero);
        at::Tensor apart = ((column - value) * d[j]).square() > cut;
        if (kept.defined()) apart = apart.logical_and(kept.select(1, begin + j));
        codes.select(1, begin + j).copy_(q);
        outliers.select(1, begin + j).copy_(apart);
        values.select(1, begin + j).copy_(column);
        change.copy_(at::where(apart, column, value) - change);
        if (j + 1 < g) group.slice(1, j + 1).addr_(change, factors[j].slice(0, j + 1), 1, -1);
      }
    }
    QuantizedWeight result{spec, codes, grids};
    const at::Tensor where = outliers.view({-1}).nonzero().view({-1});
    if (where.numel() > 0) {
      result.outliers = where;
      result.outlier_values = values.view({-1}).index_select(0, where).to(at::kFloat);
    }
    const double second = static_cast<double>(knobs_.grid_bits) / static_cast<double>(g) + 32.0 / static_cast<double>(g * knobs_.grid_group);
    result.grid_bits = second + (spec.symmetric ? 0 : spec.round_zero_point ? static_cast<double>(spec.type.bits) / static_cast<double>(g) : second);
    return result;
  }

  // 1 where a weight belongs to the grid; 0 where the rest of its group would be rounded so much better without it.
  at::Tensor without_outliers(const at::Tensor& group, const at::Tensor& d, double cut, const std::optional<Range>& range, const QuantSpec& spec) const {
    const at::Tensor all = at::ones_like(group);
    auto errors = [&](const at::Tensor& use) {
      const Grid grid = quick_fit({group, use, d, range}, spec, knobs_);
      const at::Tensor zero = grid.zero.defined() ? grid.zero.unsqueeze(1) : at::Tensor(), scale = grid.scale.unsqueeze(1);
      return ((group - value_of(codes_on(group, scale, zero, spec), scale, zero)) * d).square();
    };
    const at::Tensor base = errors(all).sum(1);
    at::Tensor keep = at::ones_like(group);
    for (int64_t j = 0; j < group.size(1); ++j) {
      at::Tensor use = all.clone();
      use.select(1, j).zero_();
      const at::Tensor left = (errors(use) * use).sum(1);
      keep.select(1, j).copy_(((base - left) <= cut).to(at::kFloat));
    }
    return keep;
  }

  Knobs knobs_;
};

}  // namespace

MethodInfo spqr_info() {
  return {.name = "spqr",
          .title = "SpQR",
          .kind = MethodClass::reconstruction,
          .help = "GPTQ in small groups with quantized scales, and the weights that rounding would cost most kept in float16. Its authors use groups of 16.",
          .source = "Dettmers et al. 2023, arXiv 2306.03078",
          .needs_calibration = true,
          .contract = rounding(Trace::grid, StorageUse::none),
          .knobs = {
              {"relative_threshold", "Outlier threshold", KnobType::real, 0.2, 0, 1000, {}, "", "error above which a weight is kept apart, relative to the mean spread", "LLMC"},
              {"simplified_outliers", "Simplified outliers", KnobType::boolean, false, 0, 0, {}, "", "do not look for outliers before the grid is fitted", "SpQR"},
              {"percdamp", "Damping", KnobType::real, 1.0, 0, 10, {}, "", "added to the diagonal, as a share of its mean", "SpQR"},
              {"scale_bits", "Bits of scales", KnobType::integer, int64_t{3}, 2, 8, {}, "bits", "of scales and zero points", "SpQR"},
              {"scale_group", "Scales per group", KnobType::integer, int64_t{16}, 2, 1024, {}, "rows", "scales that share a second-level range", "SpQR"},
          }};
}

std::unique_ptr<Method> make_spqr(const StageSpec& stage) {
  return std::make_unique<SpQr>(Knobs{.threshold = knob<double>(stage, "relative_threshold"),
                                      .damping = knob<double>(stage, "percdamp"),
                                      .grid_bits = knob<int64_t>(stage, "scale_bits"),
                                      .grid_group = knob<int64_t>(stage, "scale_group"),
                                      .simplified = knob<bool>(stage, "simplified_outliers")});
}

}  // namespace qb
