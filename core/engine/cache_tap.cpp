#include <map>

#include "core/base/error.h"
#include "core/engine/engine.h"

namespace qb {
namespace {

at::Tensor rounded(const GraphValue& value, const at::Tensor& x, const QuantSpec& spec, const CacheGrids& grids) {
  const std::vector<InputGrid>& own = value.cache == CachePart::keys ? grids.keys : grids.values;
  return spec.dynamic || !own.empty() ? fake_quantize_cache(x, spec, value.cache_heads, own) : x;
}

}  // namespace

CacheTap cache_tap(const Scheme& scheme) {
  if (!scheme.kv_cache) return {};
  if (scheme.has_static_cache()) throw InternalError("static ranges of keys and values are a quantized model's to say, not a scheme's");
  return [spec = *scheme.kv_cache](int, const GraphValue& value, const at::Tensor& x) { return rounded(value, x, spec, {}); };
}

CacheTap cache_tap(const QuantizedModel& model) {
  if (model.caches.empty()) return {};
  std::map<int, QuantizedCache> caches;
  for (const QuantizedCache& cache : model.caches) caches.emplace(cache.block, cache);
  return [caches = std::move(caches)](int block, const GraphValue& value, const at::Tensor& x) {
    const auto it = caches.find(block);
    return it == caches.end() ? x : rounded(value, x, it->second.spec, it->second.grids);
  };
}

CacheTap cache_tap(const BlockWork& work) {
  if (!work.cache) return {};
  return [spec = *work.cache, grids = work.cache_grids.value_or(CacheGrids{})](int, const GraphValue& value, const at::Tensor& x) { return rounded(value, x, spec, grids); };
}

}  // namespace qb
