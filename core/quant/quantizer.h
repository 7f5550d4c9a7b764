#pragma once
#include <ATen/ATen.h>

#include "core/quant/scheme.h"

namespace qb {

// Range of each quantization unit, before rounding to scale and zero point. Shapes broadcast over `units(W, spec)`.
struct Range {
  at::Tensor low, high;  // [units_rows, units_cols] float32, see unit layout below
};

// A weight in integer or float codes with what it takes to read them back.
// Units: tensor [1,1]; channel [out,1]; group [out, in/g]; block [ceil(out/br), ceil(in/bc)]; token and head as channel-like rows.
struct QuantizedWeight {
  QuantSpec spec;
  at::Tensor codes;   // integer: int8 [out, in], symmetric signed or asymmetric unsigned−offset as documented in quantizer.cpp;
                      // floating: the representable value divided by scale, float32 [out, in]
  at::Tensor scale;   // float32 values already rounded to spec.scale_type
  at::Tensor zero;    // float32 (integral when round_zero_point); undefined when symmetric
  at::Tensor dequantize() const;  // float32 [out, in]
};

// Ranges by spec.range, from weights [out, in] float32 alone.
Range weight_range(const at::Tensor& weight, const QuantSpec& spec);
// Scale (rounded to spec.scale_type) and zero point of a range.
struct ScaleZero {
  at::Tensor scale, zero;
};
ScaleZero scale_zero(const Range& range, const QuantSpec& spec);
// Round to nearest (ties to even) on the given grid; `grid` undefined members → computed from weight_range.
QuantizedWeight quantize(const at::Tensor& weight, const QuantSpec& spec);
QuantizedWeight quantize(const at::Tensor& weight, const QuantSpec& spec, const ScaleZero& grid);

// Dynamic fake quantization of activations x [tokens, features] (token, tensor, group or head granularity); keeps x's dtype.
at::Tensor fake_quantize(const at::Tensor& x, const QuantSpec& spec);

// Largest finite value of a float format (e4m3: 448, e5m2: 57344, e3m2: 28, e2m1: 6; others from their bits).
double float_max(const NumberType& type);
// Rounds to the nearest representable value, saturating (ties to even).
at::Tensor round_to_float(const at::Tensor& x, const NumberType& type);

}  // namespace qb
