#pragma once
#include <ATen/ATen.h>

#include "core/quant/scheme.h"

namespace qb {

// Codes [out, in] of a QuantizedWeight as runs store them, and back, exactly.
// Integers of b bits: uint8 [ceil(out·in / 8) · b], one little-endian stream of code + 2^(b−1), row by row.
// Floats: the smallest dtype that holds every value: float8_e4m3fn, float8_e5m2, float16 or float32 [out, in].
at::Tensor pack_codes(const at::Tensor& codes, const NumberType& type);
// Throws InputError when the stored tensor cannot be such codes.
at::Tensor unpack_codes(const at::Tensor& packed, const NumberType& type, int64_t out_features, int64_t in_features);

}  // namespace qb
