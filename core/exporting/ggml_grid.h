#pragma once
#include <optional>

#include "core/format/ggml_pack.h"
#include "core/quant/quantizer.h"

namespace qb {

// ggml's block types and the schemes whose weights lie in them exactly.
std::optional<DType> ggml_type(const QuantSpec& spec);  // also of plain symmetric integers in groups of a multiple of 32 with float16 scales
std::optional<QuantSpec> spec_of_ggml(DType type);      // nothing for a type that is no scheme's

// What the bytes say of a weight in codes, and back: parts_of(weight_of(type, parts)) == parts, but for scales of units whose
// super-block has none.
GgmlParts parts_of(const QuantizedWeight& weight, DType type);
QuantizedWeight weight_of(DType type, const GgmlParts& parts);

}  // namespace qb
