#pragma once
#include <functional>
#include <unordered_map>

#include "core/model/model.h"
#include "core/quant/quantizer.h"

namespace qb {

// What a quantized linear is, without its numbers.
struct QuantizedLinear {
  std::string module;                    // canonical: "model.layers.0.self_attn.q_proj"; its weight is module + ".weight"
  int64_t out_features = 0, in_features = 0;
  QuantSpec weights;                     // as meaning_of()
  std::optional<QuantSpec> activations;  // how its input is rounded at run time; nothing: not at all
  std::optional<InputGrid> input_grid = {};  // of static activations, and only of those
  bool input_hadamard = false;           // its input is rotated at run time: x·H/√in
  bool kept_columns = false, outliers = false;  // numbers beside the codes
  bool operator==(const QuantizedLinear&) const = default;
};

// How the keys and values of a block are rounded where a cache keeps them.
struct QuantizedCache {
  int block = 0;
  QuantSpec spec;    // as cache_meaning()
  CacheGrids grids;  // of a static one
  bool operator==(const QuantizedCache&) const = default;
};

// A quantized model as a value, wherever it lies: blocks of a run, or a checkpoint of some format. Exporters write it, importers
// make it. Tensors are read when they are asked for.
struct QuantizedModel {
  std::shared_ptr<const Model> model;    // its architecture, and the float tensors of whatever is neither coded nor changed
  std::vector<QuantizedLinear> linears;  // in the model's order
  std::vector<QuantizedLinear> vocabulary = {};  // token embedding and head, [vocabulary, width], where they are in codes; a tied head is the embedding
  std::vector<QuantizedCache> caches = {};  // by block
  TensorSourcePtr changed;               // float tensors in place of the model's (norms, biases, linears that stayed float), canonical names; may be empty
  // The whole weight of a linear, or its grid alone (codes undefined). Throws InputError naming file and tensor.
  std::function<QuantizedWeight(const QuantizedLinear& linear)> read;
  std::function<ScaleZero(const QuantizedLinear& linear)> read_grid;

  // The float weight in the coordinates that transformations chose; empty where nobody has it (a checkpoint by itself).
  std::function<at::Tensor(const QuantizedLinear& linear)> read_transformed;

};

// Throws InputError beginning with `what` where a cache's spec or its number of grids does not fit the block's keys and values.
void require_cache_fits(const QuantizedCache& cache, const Model& model, const std::string& what);

// Its linears, and embedding and head in codes, by their weights' canonical names, as long as they stay where they are.
std::unordered_map<std::string, const QuantizedLinear*> linears_by_weight(const QuantizedModel& model);

// Every tensor as numbers, canonical names: codes are dequantized to float32 when they are read.
TensorSourcePtr dequantized(const QuantizedModel& model);
// Every tensor as transformations left it, nothing rounded: the float model's function. Needs read_transformed.
TensorSourcePtr transformed(const QuantizedModel& model);

// Empty when both hold the same codes on the same grid; else one sentence: "3 of 4096 codes differ".
std::string difference(const QuantizedWeight& a, const QuantizedWeight& b);

}  // namespace qb
