#include "core/engine/static_ranges.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "core/base/error.h"
#include "core/engine/engine.h"

namespace qb {
namespace {

struct Extent {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  bool seen() const { return low <= high; }
  void add(const Extent& other) {
    low = std::min(low, other.low);
    high = std::max(high, other.high);
  }
};

// How many values with static ranges lie on the way to a value: those of one depth do not depend on each other's grids.
std::map<int, std::vector<ValueId>> by_depth(const BlockWork& work) {
  const LayerGraph& graph = work.decoder.graph(work.block.index);
  std::vector<int> depth(graph.values().size(), 0);
  std::map<int, std::vector<ValueId>> all;
  auto place = [&](ValueId id, int at) {
    auto& values = all[at];
    if (std::find(values.begin(), values.end(), id) == values.end()) values.push_back(id);
  };
  for (const Operation& operation : graph.operations()) {
    int deepest = 0;
    for (ValueId id : operation.inputs) deepest = std::max(deepest, depth[static_cast<size_t>(id)]);
    if (const auto* linear = std::get_if<LinearOp>(&operation.kind); linear) {
      const auto& activations = work.linears[static_cast<size_t>(linear->linear)].activations;
      if (activations && !activations->dynamic) place(operation.inputs.front(), deepest++);
    }
    for (ValueId id : operation.outputs) {
      const bool cached = work.cache && !work.cache->dynamic && graph.value(id).cache != CachePart::none;
      if (cached) place(id, deepest);
      depth[static_cast<size_t>(id)] = deepest + (cached ? 1 : 0);
    }
  }
  return all;
}

// Smallest and largest of each head, or of all.
struct CacheExtent {
  std::vector<Extent> heads;
  void add(const at::Tensor& x, int64_t count) {
    heads.resize(static_cast<size_t>(count));
    const at::Tensor by_head = x.reshape({x.size(0), count, -1}), low = by_head.amin({0, 2}).to(at::kCPU, at::kDouble), high = by_head.amax({0, 2}).to(at::kCPU, at::kDouble);
    for (int64_t h = 0; h < count; ++h) heads[static_cast<size_t>(h)].add({low[h].item<double>(), high[h].item<double>()});
  }
};

void require_finite(const BlockWork& work, const GraphValue& value, const at::Tensor& low, const at::Tensor& high) {
  if (!low.isfinite().item<bool>() || !high.isfinite().item<bool>())  // both are NaN where anything is
    throw InputError(fmt::format("block {}: \"{}\" holds NaN or infinity: it has no range", work.block.index, value.name));
}

// "mlp.experts.3.down_proj" and "mlp.experts.7.down_proj" are alike.
std::string kind_of(const std::string& name) {
  std::string kind;
  for (char c : name)
    if (c < '0' || c > '9')
      kind += c;
    else if (kind.empty() || kind.back() != '#')
      kind += '#';
  return kind;
}

}  // namespace

void fix_ranges(BlockWork& work, const HiddenStates& inputs) {
  const LayerGraph& graph = work.decoder.graph(work.block.index);
  for (const auto& [depth, values] : by_depth(work)) {
    std::map<ValueId, Extent> extents;
    std::map<CachePart, CacheExtent> caches;
    for (ValueId id : values)
      if (work.cache && !work.cache->dynamic && graph.value(id).cache != CachePart::none)
        caches[graph.value(id).cache];
      else
        extents[id];
    ForwardContext context;
    context.at_linear = activation_tap(work);
    context.at_cache = cache_tap(work);
    context.stop_at = *std::max_element(values.begin(), values.end());
    context.at_value = [&](const GraphValue& value, const at::Tensor& x) {
      work.control.checkpoint();
      const auto it = extents.find(value.id);
      const auto cache = value.cache == CachePart::none ? caches.end() : caches.find(value.cache);
      if (x.numel() == 0 || (it == extents.end() && cache == caches.end())) return x;
      const auto [low, high] = at::aminmax(x);
      require_finite(work, value, low, high);
      if (it != extents.end()) it->second.add({low.item<double>(), high.item<double>()});
      if (cache != caches.end()) cache->second.add(x, work.cache->granularity == Granularity::head ? value.cache_heads : 1);
      return x;
    };
    for (size_t b = 0; b < inputs.batches(); ++b) work.decoder.forward(work.block, inputs[b].to(work.decoder.device()), context);
    std::map<std::string, Extent> of_kind;
    for (const LinearWork& linear : work.linears)
      if (const auto it = extents.find(linear.info.input); it != extents.end() && it->second.seen()) of_kind[kind_of(linear.info.name)].add(it->second);
    for (LinearWork& linear : work.linears) {
      const auto it = extents.find(linear.info.input);
      if (!linear.activations || linear.activations->dynamic || it == extents.end()) continue;
      const Extent& extent = it->second.seen() ? it->second : of_kind[kind_of(linear.info.name)];
      if (!extent.seen()) throw InputError(fmt::format("{}: no calibration token reaches it, which its static activation range would be taken from", linear.module));
      if (!it->second.seen())
        linear.tell("no calibration token reached it: its input has the range of all its likes");
      else if (extent.low == 0 && extent.high == 0)
        linear.tell("its input was zero for every calibration token: its static range knows no size");
      linear.input_grid = input_grid(extent.low, extent.high, *linear.activations);
    }
    for (const auto& [part, extent] : caches) {
      if (!work.cache_grids) work.cache_grids.emplace();
      for (const Extent& head : extent.heads)
        (part == CachePart::keys ? work.cache_grids->keys : work.cache_grids->values).push_back(input_grid(head.low, head.high, *work.cache));
    }
  }
}

}  // namespace qb
