#pragma once
#include <ATen/ATen.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "core/format/safetensors.h"
#include "core/quant/quantized_model.h"

namespace qb {

// Reads one linear's numbers once, however many tensors are made of them: the last that was read is kept.
class LinearReader {
 public:
  explicit LinearReader(const QuantizedModel& model) : model_(model) {}
  const QuantizedWeight& weight(const QuantizedLinear& linear);
  const ScaleZero& grid(const QuantizedLinear& linear);  // does not read codes

 private:
  const QuantizedModel& model_;
  std::string weight_of_, grid_of_;
  QuantizedWeight weight_;
  ScaleZero grid_;
};
using LinearReaderPtr = std::shared_ptr<LinearReader>;

// What an exporter tells a codec about the whole checkpoint, for its quantization_config.
struct CheckpointContent {
  std::vector<std::pair<std::string, const QuantizedLinear*>> coded;  // module as the files call it
  std::vector<std::string> floats;                                    // modules of matrices that stay float
  std::vector<std::string> vocabulary = {};                           // of those in codes, embedding and head
  std::optional<QuantSpec> cache = {};                                // how keys and values are rounded
  std::vector<std::string> rotated;                                   // modules of either kind whose input is rotated at run time
};

// Quantized linears found in a checkpoint, by the files' module names. Readers fill it and take parts through it.
class CodedLinears {
 public:
  virtual ~CodedLinears() = default;
  const std::map<std::string, QuantizedLinear>& linears() const { return linears_; }  // QuantizedLinear::module: the files' name
  const std::set<std::string>& parts() const { return parts_; }                       // stored tensors that they are made of
  virtual QuantizedWeight read(const std::string& module) const = 0;
  virtual ScaleZero read_grid(const std::string& module) const = 0;
  // How keys and values are rounded; static ones have grids by the module that attends, as the files call it.
  const std::optional<QuantSpec>& cache() const { return cache_; }
  const std::map<std::string, CacheGrids>& cache_grids() const { return cache_grids_; }
  virtual bool rotated(const std::string&) const { return false; }            // whether the input of any linear, in codes or not, is rotated at run time

 protected:
  CodedLinears(TensorSourcePtr stored, std::string origin) : stored_(std::move(stored)), origin_(std::move(origin)) {}
  // A stored tensor, which is a part from now on. Throws InputError where it is missing.
  const TensorInfo& part(const std::string& name);
  [[noreturn]] void fail(const TensorInfo& tensor, const std::string& expected) const;  // an InputError that says what it is
  void require(const TensorInfo& tensor, DType type, const std::vector<int64_t>& shape) const;

  TensorSourcePtr stored_;
  std::string origin_;  // file that says how linears are stored
  std::map<std::string, QuantizedLinear> linears_;
  std::set<std::string> parts_;
  std::optional<QuantSpec> cache_;
  std::map<std::string, CacheGrids> cache_grids_;
};

// "model.layers.0.mlp.up_proj" of a tensor that is a weight; other names as they are.
std::string without_weight(const std::string& tensor);

// How scales of a stored type are rounded; others than the 16-bit ones count as float32. And back.
ScaleType scale_type_of(DType stored);
at::ScalarType scalar_type_of(ScaleType type);

// One way to keep a quantized linear in a safetensors file: a writer and its reader.
class Codec {
 public:
  virtual ~Codec() = default;
  // The tensors that stand for the weight of `linear`. module: its name in the files.
  virtual std::vector<PlannedTensor> plan(const QuantizedLinear& linear, const std::string& module, const LinearReaderPtr& reader) const = 0;
  // The same for the grids of a cache. module: the one that attends.
  virtual std::vector<PlannedTensor> plan_cache(const QuantizedCache&, const std::string&) const { return {}; }
  virtual nlohmann::ordered_json config(const CheckpointContent& content) const = 0;       // quantization_config
  // config: quantization_config. Throws InputError naming file, key or tensor, what was found and what was expected.
  virtual std::unique_ptr<CodedLinears> find(const TensorSourcePtr& stored, const nlohmann::json& config, const std::string& origin) const = 0;
};
const Codec& compressed_tensors_codec();
const Codec& gptq_codec(bool v2);
const Codec& awq_codec();
const Codec& mlx_codec();

// A configuration is read to its end: throws InputError naming a key (other than null) that none of `known` is.
void require_known_keys(const nlohmann::json& object, const std::string& place, std::initializer_list<std::string_view> known);
// A key that would change what the codes mean: absent, null or one of `allowed`, or an InputError.
void require_value(const nlohmann::json& object, const std::string& place, const char* key, const std::vector<nlohmann::json>& allowed);
// A format of folders whose linears are codes.
struct CodedFormat {
  const char* format;        // FormatInfo::name
  const char* quant_method;  // as "quantization_config" says it; MLX's, which says none, is given it by the reader
  const char* layout;        // its "checkpoint_format"; empty: whatever it says
  const char* needs;         // key without which the weights are numbers with scales, which Model::open reads; empty: none
  const Codec& (*codec)();
};
const CodedFormat* coded_format(const std::string& format);              // nullptr: there is none of that name
const CodedFormat* coded_format_of(const nlohmann::json& config);        // of a quantization_config; nullptr: no method that is known
std::string known_quant_methods();                                       // for messages: "compressed-tensors, gptq, …"

// Modules as few patterns as say them: "re:…" where digits can stand for any number without taking in one of `others`.
std::vector<std::string> module_patterns(const std::vector<std::string>& modules, const std::vector<std::string>& others);
// Whether a module is meant by a list of names, "Linear" and "re:" expressions.
bool named_by(const std::vector<std::string>& patterns, const std::string& module);

}  // namespace qb
