#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/measure/sensitivity.h"
#include "core/model/model_info.h"
#include "core/quant/scheme.h"

namespace qb {

// Which linear of a model has which bits, to be looked at, changed by hand and written as a scheme's overrides. Torch-free.

struct PlannedLinear {
  int block = 0;
  std::string name;                 // inside its block
  std::string module;               // "model.layers.0.self_attn.q_proj"
  std::string kind;                 // the name with numbers left open: "mlp.experts.*.up_proj"
  int64_t out_features = 0, in_features = 0;
  size_t tie = 0;                   // of BitPlan::ties
  std::optional<QuantSpec> weights; // nullopt: kept in float
  bool ignored = false;             // by the scheme's list, which no override overrules
};

struct BitPlan {
  std::vector<PlannedLinear> linears;       // in the model's order
  std::vector<std::vector<size_t>> ties;    // what engines join into one matrix has one scheme: linears of one input, experts of a layer
  int64_t other_bytes = 0;                  // of the model's tensors outside of these linears, as they are stored
};

// As a scheme has it.
BitPlan bit_plan(const ModelInfo& model, const Scheme& scheme);

// "int4g64": what a survey of sensitivity calls such weights; empty where it has no word for them.
std::string candidate_text(const QuantSpec& spec);
// The same kind of weights with other bits: the number type's width, or the storage type of that family. nullopt: there is none.
std::optional<QuantSpec> with_bits(const QuantSpec& spec, int bits);
// What is worth surveying beside such weights: the same kind with 2 to 6 and 8 bits.
std::vector<std::string> candidates_beside(const QuantSpec& spec);
// A survey's candidate in a recipe's words: how ranges are found and scales are stored stays as `base` has it.
QuantSpec with_candidate(const std::optional<QuantSpec>& base, const QuantSpec& candidate);

// Gives one linear, and what is tied to it, other weights; returns those that changed. Throws InputError naming a linear that they do not fit,
// or that the scheme ignores.
std::vector<size_t> give(BitPlan& plan, size_t linear, const std::optional<QuantSpec>& weights);

struct PlanTotal {
  double bits_per_weight = 0;  // of all linears; 16 of those kept in float
  int64_t bytes = 0;           // of all of the model's tensors
  double predicted = 0;        // Σ of what `cost` says of each linear: a KL divergence, or for "gram" relative errors; NaN: not known of one
  int64_t unknown = 0;         // linears whose weights the survey did not try
};
// cost: of allocation_costs(); survey: nullptr where there is none.
PlanTotal total_of(const BitPlan& plan, const Sensitivity* survey = nullptr, const std::string& cost = "guided");

// The scheme with these weights: the most frequent for all, overrides for the others. What the scheme ignores stays ignored.
Scheme planned_scheme(const BitPlan& plan, Scheme scheme);

// The scheme with other weights for one linear and what is tied to it, by one override in front of the others. Throws as give().
Scheme with_override(const ModelInfo& model, Scheme scheme, const std::string& module, const std::optional<QuantSpec>& weights);

}  // namespace qb
