#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/quant/storage.h"

namespace qb {

// A number format: integers of 1–8 bits, or a float eXmY (always symmetric). Text form: "int4", "e4m3", "e2m1".
struct NumberType {
  enum class Kind { integer, floating } kind = Kind::integer;
  int bits = 4;           // integer: width; floating: 1 + exponent + mantissa
  int exponent_bits = 0;  // floating only
  int mantissa_bits = 0;
  static std::optional<NumberType> parse(const std::string& text);
  std::string text() const;
  bool operator==(const NumberType&) const = default;
};

enum class Granularity { tensor, channel, group, block, token, head };
enum class RangeMethod { minmax, mse, hqq };
// How the target format stores scales; what is evaluated is rounded the same way. e8m0: powers of two; e4m3: times one float32
// of the tensor (both of storage types alone).
enum class ScaleType { f32, f16, bf16, e8m0, e4m3 };

std::string to_text(Granularity value);
std::string to_text(RangeMethod value);
std::string to_text(ScaleType value);
std::optional<Granularity> parse_granularity(const std::string& text);
std::optional<RangeMethod> parse_range_method(const std::string& text);
std::optional<ScaleType> parse_scale_type(const std::string& text);

// How one kind of tensor is quantized.
struct QuantSpec {
  NumberType type;
  bool symmetric = true;
  Granularity granularity = Granularity::group;
  int64_t group_size = 128;               // group: along in_features
  int64_t block_rows = 128, block_cols = 128;  // block
  int64_t heads = 0;                      // head: number of heads along the rows
  bool round_zero_point = true;           // asymmetric only; false keeps a float zero point
  bool narrow_range = false;              // symmetric integers: drop the lowest code, [-(2^(b-1)-1), 2^(b-1)-1]
  bool full_scale = true;                 // symmetric integers: scale = absmax / ((2^b−1)/2) as compressed-tensors;
                                          // false: absmax / (2^(b−1)−1) as LLMC and AutoGPTQ
  ScaleType scale_type = ScaleType::f16;
  RangeMethod range = RangeMethod::minmax;
  int64_t mse_grid = 100;                 // RangeMethod::mse: shrink steps
  double mse_max_shrink = 0.8;            //   largest shrink tried
  double mse_norm = 2.4;                  //   |error|^norm
  double hqq_norm = 0.7, hqq_beta = 10, hqq_kappa = 1.01;  // RangeMethod::hqq
  int64_t hqq_iterations = 20;
  bool dynamic = true;                    // activations: ranges computed per call
  Storage storage = Storage::none;        // a type that fixes all of the above but hqq_…; set with spec_of()
  bool scale_type_open = false;           // recipes: nothing is said of scale_type, which is the target's to choose
  bool operator==(const QuantSpec&) const = default;
};

// How weights of this storage type are quantized.
QuantSpec spec_of(Storage storage);
// How activations of this storage type are quantized: groups by the values of each call, NVFP4's under one factor of the calibration text.
QuantSpec input_spec_of(Storage storage);
// What a recipe's kv_cache is where it does not say: a range for each head of a token, scales as engines keep them.
QuantSpec default_cache_spec();
// What stands for the type in recipes and sentences: the storage type's name, or the number type's.
std::string type_text(const QuantSpec& spec);
// Inputs whose scales are chosen together: a super-block, or what shares one scale.
int64_t grid_width(const QuantSpec& spec, int64_t in_features);
// Whether zero is on every grid of the spec, so that pruned weights can stay zero.
bool has_exact_zero(const QuantSpec& spec);

// Linears whose module name matches `match` (glob with * and ?, or "re:" + regular expression) are treated differently.
struct SchemeOverride {
  std::string match;
  std::optional<QuantSpec> weights;  // nullopt: kept in float
  bool operator==(const SchemeOverride&) const = default;
};

// How the head's codes are found: each weight to its nearest, or as GPTQ does by the Gram matrix of what the head multiplies.
enum class HeadRounding { rtn, gptq };
std::string to_text(HeadRounding value);
std::optional<HeadRounding> parse_head_rounding(const std::string& text);

// What is quantized, to what.
struct Scheme {
  std::optional<QuantSpec> weights;
  std::optional<QuantSpec> activations;
  std::optional<QuantSpec> kv_cache;        // keys (after RoPE) and values, as attention reads them
  std::optional<QuantSpec> embedding;       // of tokens; where the model ties the head to it, one of the two stands for both
  std::optional<QuantSpec> head;            // whose inputs stay float
  HeadRounding head_rounding = HeadRounding::rtn;
  std::vector<std::string> ignore;          // patterns of linears in blocks that are kept in float
  std::vector<SchemeOverride> overrides;    // first match wins
  std::string mix;                          // of mix_names(): weights are its first type, and with_mix() adds the others; empty: none
  // For a full module name such as "model.layers.3.mlp.down_proj"; nullopt: stays float.
  std::optional<QuantSpec> weights_of(const std::string& module) const;
  std::optional<QuantSpec> activations_of(const std::string& module) const;
  bool has_static_activations() const { return activations && !activations->dynamic; }  // whose ranges are taken from calibration text
  bool has_vocabulary() const { return embedding || head; }
  bool has_static_cache() const { return kv_cache && !kv_cache->dynamic; }
  bool operator==(const Scheme&) const = default;
};

// Whether the whole module name matches: a glob, or "re:" + ECMAScript regular expression. Throws InputError for a bad one.
bool matches(const std::string& pattern, const std::string& module);

// "int4 g64 asymmetric", "q4_K"
std::string describe(const QuantSpec& spec);
// "W4A16 g64 asymmetric", "q4_K", "nvfp4 A8", "W8A8KV8 per channel symmetric"
std::string describe(const Scheme& scheme);
// Storage per weight, scales and zero points included.
double bits_per_weight(const QuantSpec& spec, int64_t out_features, int64_t in_features);
// Empty when spec fits [out, in]; else one sentence with what was found and the sizes that would fit.
std::string misfit(const QuantSpec& spec, int64_t out_features, int64_t in_features);
// The same for activations entering a linear of in_features. token: a range per row; head: per row and head; static: per tensor.
std::string activation_misfit(const QuantSpec& spec, int64_t in_features);
// The same for keys or values of heads of this size. token: a range per token; head: per token and head; group: along a head;
// static: per tensor, or per head.
std::string cache_misfit(const QuantSpec& spec, int64_t head_dim);

}  // namespace qb
