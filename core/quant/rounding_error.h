#pragma once
#include "core/quant/quantizer.h"

namespace qb {

// What rounding does to a weight [out, in] float32 on a grid: dequantize(quantize(w)) − w, in one pass over the memory for
// integers per tensor, channel or group on a CPU. What searches call for every candidate.
at::Tensor rounding_error(const at::Tensor& weight, const QuantSpec& spec, const ScaleZero& grid);

}  // namespace qb
