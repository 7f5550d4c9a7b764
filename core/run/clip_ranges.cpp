#include "core/run/clip_ranges.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "core/run/run_export.h"

namespace qb {
namespace {

// Half a step, and what rounding of scales and zero points to what is stored takes off a range that nobody clipped.
constexpr double kHalfStep = 0.51;

// Lowest and highest code of a unit.
std::pair<double, double> ends_of(const QuantSpec& spec) {
  if (spec.storage == Storage::iq4_nl) return {-127, 113};  // the outermost of its levels (ggml-common.h, kvalues_iq4nl)
  if (spec.type.kind == NumberType::Kind::floating) return {-float_max(spec.type), float_max(spec.type)};
  const auto [low, high] = code_bounds(spec);
  return {low, high};
}

std::array<double, 5> quantiles(const at::Tensor& values) {
  const at::Tensor sorted = std::get<0>(values.reshape({-1}).to(at::kDouble).sort());
  std::array<double, 5> found{};
  const double* data = sorted.const_data_ptr<double>();
  const auto last = static_cast<double>(sorted.numel() - 1);
  for (size_t i = 0; i < found.size(); ++i) found[i] = data[static_cast<int64_t>(std::llround(ClipRanges::kShares[i] * last))];
  return found;
}

// [out, in] as [units, weights of each].
at::Tensor by_unit(const at::Tensor& weight, const QuantSpec& spec) {
  switch (spec.granularity) {
    case Granularity::tensor: return weight.reshape({1, -1});
    case Granularity::group: return weight.reshape({-1, spec.group_size});
    case Granularity::block:
      return weight.reshape({weight.size(0) / spec.block_rows, spec.block_rows, weight.size(1) / spec.block_cols, spec.block_cols}).permute({0, 2, 1, 3}).reshape({-1, spec.block_rows * spec.block_cols});
    default: return weight;
  }
}

}  // namespace

ClipRanges clip_ranges(const std::filesystem::path& run, const std::string& module, const Control& control) {
  const FinishedRun opened = open_run(run, control);
  control.checkpoint();
  const auto& linears = opened.model.linears;
  const auto it = std::find_if(linears.begin(), linears.end(), [&](const QuantizedLinear& l) { return l.module == module; });
  if (it == linears.end()) throw InputError(fmt::format("{}: {} is not in codes", run.string(), module));
  const QuantizedWeight weight = opened.model.read(*it);
  const QuantSpec& spec = weight.spec;
  if (spec.granularity == Granularity::block && (it->out_features % spec.block_rows != 0 || it->in_features % spec.block_cols != 0))
    throw InputError(fmt::format("{}: blocks of {}×{} do not divide [{}, {}]", module, spec.block_rows, spec.block_cols, it->out_features, it->in_features));
  ClipRanges found;
  found.module = module;
  found.scheme = describe(spec);

  const auto [lowest, highest] = ends_of(spec);
  const at::Tensor scale = weight.grid.scale.to(at::kFloat).reshape({-1, 1});
  at::Tensor one, other;
  if (weight.grid.minimum.defined()) {
    one = weight.grid.minimum.to(at::kFloat).reshape({-1, 1});
    other = one + scale * (highest - lowest);
  } else {
    const at::Tensor zero = weight.grid.zero.defined() ? weight.grid.zero.to(at::kFloat).reshape({-1, 1}) : at::zeros({1, 1});
    one = (lowest - zero) * scale;
    other = (highest - zero) * scale;
  }
  const at::Tensor low = at::minimum(one, other), high = at::maximum(one, other);  // scales may be negative
  found.units = low.numel();
  found.low = quantiles(low);
  found.high = quantiles(high);
  if (!opened.model.read_transformed) {  // nobody has the float weight
    found.beyond = std::nan("");
    return found;
  }
  control.checkpoint();
  at::Tensor original = opened.model.read_transformed(*it).to(at::kFloat).clone();
  // What is kept beside the codes is cut by nothing: it stands in the middle of the range.
  at::Tensor kept = at::zeros_like(original, at::kBool);
  if (weight.columns.defined() && weight.columns.numel() > 0) kept.index_fill_(1, weight.columns, 1);
  if (weight.outliers.defined() && weight.outliers.numel() > 0) kept.view({-1}).index_fill_(0, weight.outliers, 1);
  const at::Tensor units = by_unit(original, spec);
  if (units.size(0) != low.size(0)) throw InternalError(fmt::format("{}: {} units of weights, {} scales", module, units.size(0), low.size(0)));
  const at::Tensor slack = scale.abs() * (spec.type.kind == NumberType::Kind::integer && spec.storage != Storage::iq4_nl ? kHalfStep : 0.0001 * highest);
  const at::Tensor out = at::logical_and(at::logical_or(units < low - slack, units > high + slack), at::logical_not(by_unit(kept, spec)));
  found.beyond = out.to(at::kDouble).mean().item<double>();
  found.cut = out.any(1).sum().item<int64_t>();
  return found;
}

}  // namespace qb
