#include "core/engine/joined_factors.h"

#include <algorithm>
#include <map>

namespace qb {
namespace {

constexpr double kSmallestScale = 1.0 / 512;  // above zero, of e4m3

void take_factor(QuantizedWeight& weight, const at::Tensor& factor) {
  ScaleZero grid = weight.grid;
  grid.super = factor;
  grid.scale = (weight.grid.scale / factor).to(at::kFloat8_e4m3fn).to(at::kFloat).clamp_min(kSmallestScale) * factor;
  if (!at::equal(grid.scale, weight.grid.scale)) weight.codes = quantize(weight.dequantize(), weight.spec, grid).codes;  // where the scale stays, so do they
  weight.grid = grid;
}

}  // namespace

void join_factors(BlockWork& work) {
  std::map<ValueId, std::vector<QuantizedWeight*>> joined;
  for (LinearWork& linear : work.linears)
    if (linear.quantized && linear.quantized->spec.storage == Storage::nvfp4) joined[linear.info.input].push_back(&*linear.quantized);
  for (auto& [value, weights] : joined) {
    at::Tensor most = weights.front()->grid.super;
    for (const QuantizedWeight* weight : weights) most = at::maximum(most, weight->grid.super);
    for (QuantizedWeight* weight : weights)
      if (!at::equal(weight->grid.super, most)) take_factor(*weight, most);
  }
}

}  // namespace qb
