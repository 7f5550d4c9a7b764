#include "core/method/reconstruction/block_learning.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/quant/units.h"

namespace qb {
namespace {

struct LearnedGrid {
  at::Tensor scale, zero;  // zero undefined: symmetric
};

// What the storage type can hold of the range, with the gradient of what it would like to; and the grid itself.
std::pair<LearnedGrid, ScaleZero> storable_grid_of(const LearnedRounding& r) {
  const int64_t out = r.weight.size(0), in = r.weight.size(1);
  const auto [scale, minimum] = wanted_grid(r.low * r.low_share, r.high * r.high_share, r.spec);
  auto units = [&](const at::Tensor& t) { return t.defined() ? unit_grid(t.detach(), r.spec, out, in) : t; };
  const ScaleZero stored = storable_grid(units(scale), units(minimum), r.spec);
  auto through = [](const at::Tensor& exact, const at::Tensor& held) { return exact + (unit_column(held) - exact.detach()); };
  LearnedGrid grid{through(scale, stored.scale), {}};
  if (minimum.defined()) grid.zero = -(through(minimum, stored.minimum) / grid.scale) - (1 << (r.spec.type.bits - 1));
  return {grid, stored};
}

LearnedGrid grid_of(const LearnedRounding& r) {
  if (r.spec.storage != Storage::none) return storable_grid_of(r).first;
  const auto [qmin, qmax] = code_bounds(r.spec);
  const at::Tensor low = (r.low * r.low_share).clamp_max(0), high = (r.high * r.high_share).clamp_min(0);
  if (r.spec.symmetric) {
    const double steps = r.spec.full_scale && !r.spec.narrow_range ? (qmax - qmin) / 2.0 : qmax;
    return {stored_through((at::maximum(-low, high) / steps).clamp_min(1e-7), r.spec.scale_type), {}};
  }
  const at::Tensor scale = stored_through(((high - low) / static_cast<double>(qmax - qmin)).clamp_min(1e-7), r.spec.scale_type);
  const at::Tensor zero = qmin - low / scale;
  return {scale, r.spec.round_zero_point ? round_through(zero).clamp(qmin, qmax) : stored_through(zero, r.spec.scale_type)};
}

at::Tensor codes_of(const LearnedRounding& r, const LearnedGrid& grid) {
  const auto [qmin, qmax] = code_bounds(r.spec);
  at::Tensor x = to_units(r.weight, r.spec) / grid.scale;
  if (r.shift.defined()) x = x + (r.kept.defined() ? r.shift * r.kept : r.shift);
  if (grid.zero.defined()) x = x + grid.zero;
  return round_through(x).clamp(qmin, qmax);
}

}  // namespace

std::vector<NormTensor> norm_tensors(const Block& block, const LayerGraph& graph) {
  std::vector<NormTensor> found;
  for (const Operation& operation : graph.operations()) {
    const auto* norm = std::get_if<NormOp>(&operation.kind);
    if (!norm || norm->heads > 0 || norm->tensor.empty()) continue;
    for (const char* part : {".weight", ".bias"}) {
      const std::string tensor = norm->tensor + part;
      const bool known = std::any_of(found.begin(), found.end(), [&](const NormTensor& other) { return other.name == tensor; });  // one may normalise twice
      if (!known && block.others.contains(tensor)) found.push_back({tensor, is_plus_one(norm->kind)});
    }
  }
  return found;
}

LinearTap straight_through(const LinearTap& tap) {
  return [tap](const Linear& linear, const at::Tensor& x) {
    const at::Tensor exact = x.detach(), replaced = tap(linear, exact);
    return replaced.is_same(exact) ? x : x + (replaced - exact);
  };
}

CacheTap straight_through(const CacheTap& tap) {
  return [tap](int block, const GraphValue& value, const at::Tensor& x) {
    const at::Tensor exact = x.detach(), replaced = tap(block, value, exact);
    return replaced.is_same(exact) ? x : x + (replaced - exact);
  };
}

at::Tensor stored_through(const at::Tensor& x, ScaleType type) {
  if (type == ScaleType::f32) return x;
  const at::Tensor stored = x.detach().to(type == ScaleType::f16 ? at::kHalf : at::kBFloat16).to(at::kFloat);
  return x + (stored - x.detach());
}

at::Tensor round_through(const at::Tensor& x) { return x + (x.detach().round() - x.detach()); }

at::Tensor LearnedRounding::value() const {
  const LearnedGrid grid = grid_of(*this);
  at::Tensor codes = codes_of(*this, grid);
  if (grid.zero.defined()) codes = codes - grid.zero;
  return from_units(codes * grid.scale, spec, weight.size(0), weight.size(1));
}

QuantizedWeight LearnedRounding::quantized() const {
  const at::NoGradGuard no_grad;
  const int64_t out = weight.size(0), in = weight.size(1);
  if (spec.storage != Storage::none) {
    const auto [held, exact] = storable_grid_of(*this);
    return {spec, from_units(codes_of(*this, held).to(at::kChar), spec, out, in), exact};
  }
  const LearnedGrid grid = grid_of(*this);
  ScaleZero stored{unit_grid(stored_scale(grid.scale.detach(), spec.scale_type), spec, out, in), {}};
  if (grid.zero.defined()) stored.zero = unit_grid(grid.zero.detach(), spec, out, in);
  return {spec, from_units(codes_of(*this, grid).to(at::kChar), spec, out, in), stored};
}

std::string learned_rounding_problem(const std::optional<QuantSpec>& spec) {
  return !spec || (spec->type.kind == NumberType::Kind::integer && spec->storage != Storage::iq4_nl) ? std::string() : "learned rounding needs evenly spaced codes, found " + describe(*spec);
}

LearnedRounding learned_rounding(const LinearWork& linear) {
  const Range whole = starting_range(linear.weight, *linear.spec);
  LearnedRounding r;
  r.spec = *linear.spec;
  r.weight = linear.weight;
  r.low = unit_column(whole.low);
  r.high = unit_column(whole.high);
  r.low_share = at::ones_like(r.low);
  r.high_share = at::ones_like(r.high);
  if (linear.kept.defined()) r.kept = to_units(linear.kept.to(at::kFloat), r.spec);
  if (linear.range) {  // starts where a search has ended
    const at::Tensor low = unit_column(linear.range->low), high = unit_column(linear.range->high);
    r.low_share = at::where(r.low < 0, (low / r.low).clamp(0, 1), r.low_share);
    r.high_share = at::where(r.high > 0, (high / r.high).clamp(0, 1), r.high_share);
  }
  return r;
}

BlockLearning::BlockLearning(BlockWork& work) : work_(work), state_(work.seed * 0x9e3779b97f4a7c15ULL + static_cast<uint64_t>(work.block.index) + 1) {
  if (!work.samples) throw InternalError("a stage learns on the block's output but did not ask for it");
  std::map<std::string, QuantSpec> activations;
  for (const LinearWork& linear : work.linears)
    if (linear.activations) activations.emplace(linear.info.tensor, *linear.activations);
  const Control& control = work.control;
  tap_ = straight_through([activations, &control](const Linear& linear, const at::Tensor& x) {
    control.checkpoint();
    const auto it = activations.find(linear.info.tensor);
    return it == activations.end() ? x : fake_quantize(x, it->second);
  });
  // Static ranges are known when all stages are through: until then those of the batch stand for them.
  if (work.cache) cache_tap_ = straight_through([spec = *work.cache](int, const GraphValue& value, const at::Tensor& x) { return fake_quantize_cache(x, spec, value.cache_heads); });
}

at::Tensor BlockLearning::difference(const at::Tensor& input, const at::Tensor& target) const {
  const at::Tensor out = work_.decoder.forward_learning(work_.block, input.to(work_.decoder.device()), {.at_linear = tap_, .at_cache = cache_tap_});
  const Decoder& decoder = work_.decoder;
  return (decoder.hidden_part(out).to(at::kFloat) - decoder.hidden_part(target).to(decoder.device(), at::kFloat)).square();
}

at::Tensor BlockLearning::loss(int64_t count, bool float_path) {
  auto next = [this](int64_t below) {  // SplitMix64: the same on every machine
    state_ += 0x9e3779b97f4a7c15ULL;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return static_cast<int64_t>((z ^ (z >> 31)) % static_cast<uint64_t>(below));
  };
  const BlockSamples& samples = *work_.samples;
  const int64_t batch = next(samples.batches());
  at::Tensor input = samples.input(batch), target = float_path ? samples.model_output(batch) : samples.float_output(batch);
  if (const int64_t rows = input.size(0); count < rows) {
    std::vector<int64_t> order(static_cast<size_t>(rows));
    for (int64_t i = 0; i < rows; ++i) order[static_cast<size_t>(i)] = i;
    for (int64_t i = 0; i < count; ++i) std::swap(order[static_cast<size_t>(i)], order[static_cast<size_t>(i + next(rows - i))]);
    const at::Tensor chosen = at::tensor(at::IntArrayRef(order.data(), static_cast<size_t>(count)), at::kLong);
    input = input.index_select(0, chosen);
    target = target.index_select(0, chosen);
  }
  at::AutoGradMode gradients(true);
  return difference(input, target).mean();
}

int64_t BlockLearning::steps_an_epoch(int64_t count) const {
  int64_t samples = 0;
  for (int64_t b = 0; b < work_.samples->batches(); ++b) samples += work_.samples->input(b).size(0);
  return std::max<int64_t>(1, samples / std::max<int64_t>(1, count));
}

double BlockLearning::full_loss(bool float_path) {
  const at::NoGradGuard no_grad;
  double sum = 0, count = 0;
  for (int64_t b = 0; b < work_.samples->batches(); ++b) {
    const at::Tensor input = work_.samples->input(b), target = float_path ? work_.samples->model_output(b) : work_.samples->float_output(b);
    const at::Tensor out = work_.decoder.forward(work_.block, input.to(work_.decoder.device()), {.at_linear = tap_, .at_cache = cache_tap_});
    const at::Tensor error = work_.decoder.hidden_part(out).to(at::kFloat) - work_.decoder.hidden_part(target).to(work_.decoder.device(), at::kFloat);
    sum += error.square_().sum(at::kDouble).item<double>();
    count += static_cast<double>(error.numel());
  }
  return sum / count;
}

}  // namespace qb
