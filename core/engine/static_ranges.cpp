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

// How many static inputs lie on the way to a value: those of one depth do not depend on each other's grids.
std::map<int, std::vector<ValueId>> by_depth(const BlockWork& work) {
  const LayerGraph& graph = work.decoder.graph(work.block.index);
  std::vector<int> depth(graph.values().size(), 0);
  std::map<int, std::vector<ValueId>> all;
  for (const Operation& operation : graph.operations()) {
    int deepest = 0;
    for (ValueId id : operation.inputs) deepest = std::max(deepest, depth[static_cast<size_t>(id)]);
    if (const auto* linear = std::get_if<LinearOp>(&operation.kind); linear && work.linears[static_cast<size_t>(linear->linear)].activations) {
      auto& values = all[deepest];
      const ValueId input = operation.inputs.front();
      if (std::find(values.begin(), values.end(), input) == values.end()) values.push_back(input);
      ++deepest;
    }
    for (ValueId id : operation.outputs) depth[static_cast<size_t>(id)] = deepest;
  }
  return all;
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

void fix_input_grids(BlockWork& work, const HiddenStates& inputs) {
  for (const auto& [depth, values] : by_depth(work)) {
    std::map<ValueId, Extent> extents;
    for (ValueId id : values) extents[id];
    ForwardContext context;
    context.at_linear = activation_tap(work);
    context.stop_at = *std::max_element(values.begin(), values.end());
    context.at_value = [&](const GraphValue& value, const at::Tensor& x) {
      work.control.checkpoint();
      if (const auto it = extents.find(value.id); it != extents.end() && x.numel() > 0) {
        const auto [low, high] = at::aminmax(x);
        it->second.add({low.item<double>(), high.item<double>()});
        if (!low.isfinite().item<bool>() || !high.isfinite().item<bool>())  // both are NaN where anything is
          throw InputError(fmt::format("block {}: \"{}\" holds NaN or infinity: it has no range", work.block.index, value.name));
      }
      return x;
    };
    for (size_t b = 0; b < inputs.batches(); ++b) work.decoder.forward(work.block, inputs[b].to(work.decoder.device()), context);
    std::map<std::string, Extent> of_kind;
    for (const LinearWork& linear : work.linears)
      if (const auto it = extents.find(linear.info.input); it != extents.end() && it->second.seen()) of_kind[kind_of(linear.info.name)].add(it->second);
    for (LinearWork& linear : work.linears) {
      const auto it = extents.find(linear.info.input);
      if (!linear.activations || it == extents.end()) continue;
      const Extent& extent = it->second.seen() ? it->second : of_kind[kind_of(linear.info.name)];
      if (!extent.seen()) throw InputError(fmt::format("{}: no calibration token reaches it, which its static activation range would be taken from", linear.module));
      if (!it->second.seen())
        linear.tell("no calibration token reached it: its input has the range of all its likes");
      else if (extent.low == 0 && extent.high == 0)
        linear.tell("its input was zero for every calibration token: its static range knows no size");
      linear.input_grid = input_grid(extent.low, extent.high, *linear.activations);
    }
  }
}

}  // namespace qb
