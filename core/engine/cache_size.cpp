#include "core/engine/cache_size.h"

#include <fmt/format.h>

namespace qb {

CacheSize cache_size(const Architecture& architecture, const QuantSpec& spec) {
  const double scale_bits = spec.scale_type == ScaleType::f32 ? 32 : 16;
  const bool has_zero = spec.type.kind == NumberType::Kind::integer && !spec.symmetric;
  const double range_bits = !spec.dynamic ? 0 : scale_bits + (has_zero ? (spec.round_zero_point ? spec.type.bits : scale_bits) : 0);
  double values = 0, ranges = 0;
  for (const LayerSpec& layer : architecture.layers) {
    const CachedValues cached = cached_values(layer.graph);
    if (!cached.exists()) continue;
    for (int64_t dim : {cached.key_dim, cached.value_dim}) {
      const auto width = static_cast<double>(cached.heads * dim);
      values += width;
      ranges += spec.granularity == Granularity::group ? width / static_cast<double>(spec.group_size) : spec.granularity == Granularity::head ? static_cast<double>(cached.heads) : 1;
    }
  }
  return {values * 2, (values * spec.type.bits + ranges * range_bits) / 8};
}

std::string cache_size_text(const Architecture& architecture, const QuantSpec& spec) {
  const CacheSize size = cache_size(architecture, spec);
  return fmt::format("keys and values of a token take {:.2f} KB in place of {:.2f} KB in 16 bits", size.rounded / 1e3, size.plain / 1e3);
}

}  // namespace qb
