#pragma once
#include <ATen/ATen.h>

#include <optional>
#include <utility>

#include "core/base/control.h"
#include "core/quant/scheme.h"

namespace qb {

// Units share one scale. Per-unit values are [rows, cols] float32: tensor [1, 1]; channel and token [out, 1];
// group [out, in/g]; block [ceil(out/br), ceil(in/bc)]; head [heads, 1].

// Smallest and largest value that each unit shall represent, before rounding to scale and zero point.
struct Range {
  at::Tensor low, high;
};

// The grid of each unit: value = (code − zero) · scale. zero is undefined for symmetric and float types.
// Of storage types that keep a minimum, value = (code + 2^(bits−1)) · scale + minimum, to the bit; zero says the same to within
// float32's rounding, so that all else may work with it. Their scales may be negative where the type allows it.
struct ScaleZero {
  at::Tensor scale;  // float32 holding values already rounded to spec.scale_type
  at::Tensor zero;   // in the codes' signed domain: integral when round_zero_point, else rounded to spec.scale_type too
  at::Tensor minimum = {};           // per unit; undefined: the storage type keeps none
  at::Tensor super = {}, super_minimum = {};  // [out, in / super-block]: scale / super and −minimum / super_minimum are the stored integers,
                                     // exactly (super_minimum 0: so are they). NVFP4: super [1, 1], scale / super is the stored e4m3
};

// A weight in codes with what it takes to read them back.
struct QuantizedWeight {
  QuantSpec spec;
  at::Tensor codes;  // integer: int8 in [−2^(b−1), 2^(b−1)−1], also when asymmetric (as compressed-tensors counts);
                     // floating: float32, values that the type represents. [out, in]
  ScaleZero grid;
  // What is kept beside the codes in float16, and replaces what they say; undefined: nothing.
  at::Tensor columns, column_values;    // [k] int64 input features, [out, k] float32
  at::Tensor outliers, outlier_values;  // [n] int64 positions out·in_features + in, ascending; [n] float32
  std::optional<double> grid_bits;      // storage of scales and zero points per weight where a method packs them tighter
  at::Tensor dequantize() const;        // float32 [out, in]
};

// Storage per weight, everything included: kept columns cost 16 bits a weight instead of a code, outliers 16 and a 16-bit
// column index each and a 32-bit pointer a row.
double bits_per_weight(const QuantizedWeight& weight);

// float32 values as they are after storage in this type.
at::Tensor round_to_scale_type(const at::Tensor& values, ScaleType type);

// Lowest and highest code of an integer spec.
std::pair<int, int> code_bounds(const QuantSpec& spec);

// min and max of each unit, from weights [out, in] float32. Throws InputError for NaN or infinite weights.
Range min_max(const at::Tensor& weight, const QuantSpec& spec);
// Scales as they are stored in this type; units without extent (0) get a harmless scale of one. Throws InputError when one overflows.
at::Tensor stored_scale(const at::Tensor& scale, ScaleType type);
// Scale (rounded to spec.scale_type) and zero point of a range. Throws InputError when a scale overflows its type.
ScaleZero scale_zero(const Range& range, const QuantSpec& spec);

// What a search of grids may know. importance: [in] ≥ 0, what a squared error in a column counts (mean squares of the inputs, or
// proportional to them); undefined: all the same. factor: NVFP4's of the tensor that the weight is a part of; undefined: its own.
struct GridHints {
  at::Tensor importance, factor;
};
// The grid that spec.range asks for: min–max, the shrunk range of least |error|^norm, or HQQ's zero points; of a storage type the
// one that it can hold of least Σ importance·error². Sees control many times a second.
ScaleZero find_grid(const at::Tensor& weight, const QuantSpec& spec, const Control& control = {}, const GridHints& hints = {});
// Ranges to shrink: each unit's smallest and largest weight; of a storage type what find_grid's grid reaches, so that scale_zero()
// leads back to it.
Range starting_range(const at::Tensor& weight, const QuantSpec& spec, const Control& control = {}, const GridHints& hints = {});
// NVFP4's factor for all of a weight, [1, 1]; undefined for other types.
at::Tensor tensor_factor(const at::Tensor& weight, const QuantSpec& spec);

// Scale and minimum [units, 1] that a storage type would like for these ranges, before they become what it can hold.
// Differentiable. minimum undefined: the type keeps none.
std::pair<at::Tensor, at::Tensor> wanted_grid(const at::Tensor& low, const at::Tensor& high, const QuantSpec& spec);
// The grid nearest to these [rows, cols] that the storage type can hold.
ScaleZero storable_grid(const at::Tensor& scale, const at::Tensor& minimum, const QuantSpec& spec, const at::Tensor& factor = {});
// A storage type's grid with one value changed, without what follows from it: makes zero anew.
void derive_zero(ScaleZero& grid, const QuantSpec& spec);

// HQQ's zero points on the scales of these ranges (spec.hqq_…).
ScaleZero hqq_grid(const at::Tensor& weight, const QuantSpec& spec, const Range& range, const Control& control = {});

// Round to nearest (ties to even) on find_grid(weight) or on the given grid: clamp(round(w / scale + zero)).
QuantizedWeight quantize(const at::Tensor& weight, const QuantSpec& spec, const Control& control = {}, const GridHints& hints = {});
QuantizedWeight quantize(const at::Tensor& weight, const QuantSpec& spec, const ScaleZero& grid);
// Codes of quotients x / scale (+ zero): the nearest integer in bounds, float, or level of iq4_nl. float32.
at::Tensor nearest_code(const at::Tensor& quotient, const QuantSpec& spec);

// Dynamic fake quantization of activations x [tokens, features] (token, tensor, group or head granularity); keeps x's dtype.
at::Tensor fake_quantize(const at::Tensor& x, const QuantSpec& spec);

// The grid of static activations, one for all that enters a linear. Of NVFP4, whose groups' scales are made at each call: what these
// are stored times, as "input_global_scale"; a power of two, as of weights.
struct InputGrid {
  float scale = 1;  // as the spec's scale type stores it
  float zero = 0;   // a code; 0 for symmetric and float types
  bool operator==(const InputGrid&) const = default;
};
// Of a range. Throws InputError when the scale overflows its type.
InputGrid input_grid(double low, double high, const QuantSpec& spec);
// Static fake quantization: values beyond the grid become its ends.
at::Tensor fake_quantize(const at::Tensor& x, const QuantSpec& spec, const InputGrid& grid);

// The grids of a layer's static keys and values: one each, or one each for every head.
struct CacheGrids {
  std::vector<InputGrid> keys, values;
  bool operator==(const CacheGrids&) const = default;
};
// Fake quantization of keys or values x [tokens, heads · dim] or [tokens, heads, dim]; keeps shape and dtype. grids: those of a
// static spec; empty: ranges of this call.
at::Tensor fake_quantize_cache(const at::Tensor& x, const QuantSpec& spec, int64_t heads, const std::vector<InputGrid>& grids = {});

// Largest finite value of a float format: e4m3 448 (OCP's fn variant), e3m2 28, e2m1 6; five exponent bits and more give
// their top exponent to infinity and NaN as IEEE 754 does (e5m2 57344), fewer represent numbers with all codes.
double float_max(const NumberType& type);
// Rounds to the nearest representable value, saturating (ties to even).
at::Tensor round_to_float(const at::Tensor& x, const NumberType& type);

}  // namespace qb
