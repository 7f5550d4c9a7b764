#pragma once
#include <optional>

#include "core/format/ggml_pack.h"
#include "core/quant/quantizer.h"

namespace qb {

// ggml's block types and the schemes whose weights lie in them exactly.
std::optional<DType> ggml_type(const QuantSpec& spec);  // also of plain symmetric integers in groups of a multiple of 32 with float16 scales
std::optional<QuantSpec> spec_of_ggml(DType type);      // nothing for a type that is no scheme's

// E2M1 values as indices 0 … 15 (a sign bit over an index into 0 ½ 1 1½ 2 3 4 6), int8, and back, float32.
at::Tensor fp4_index(const at::Tensor& values);
at::Tensor fp4_value(const at::Tensor& index);

// What the bytes say of a weight in codes, and back: parts_of(weight_of(type, parts)) == parts, but for scales of units whose
// super-block has none.
GgmlParts parts_of(const QuantizedWeight& weight, DType type);
QuantizedWeight weight_of(DType type, const GgmlParts& parts);

}  // namespace qb
