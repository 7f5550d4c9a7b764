// compressed-tensors (github.com/vllm-project/compressed-tensors), version 0.18's layout. What readers trip over:
// - keys inside the objects of weights and activations that a reader does not know are errors there: only long-standing ones are written;
// - a zero point beside symmetric weights is refused by vLLM, so there is none;
// - every Linear that is not quantized must be in `ignore`, the head too when it is tied and has no tensor (transformers: "Linear has no
//   attribute weight");
// - vLLM's head is no Linear: it is named among the targets;
// - an embedding in codes is what vLLM has a kernel of Triton for (GPUs), and transformers does not decompress it: it stays in numbers;
// - transformers does not decompress Falcon, whose linears are a class of its own;
// - integer weights with quantized activations are int-quantized, one byte a weight, whatever their bits;
// - static activations have one value in "input_scale", and asymmetric ones in "input_zero_point", which is refused beside symmetric ones;
// - scales of keys and values stand beside the module that attends, one or [heads, 1, 1] of them; ranges of each call are per group of a
//   head's channels ("token" and "tensor" take all tokens of the call together there). transformers ignores them where the module has no
//   k_proj or qkv_proj;
// - "transform_config" says rotations of inputs at run time: transformers 5.17 ignores it, vLLM has a kernel on GPUs alone. "hadamard" is
//   Sylvester's matrix over the root of its size. Weights are stored rotated, so there is no entry for "weight_input", which a reader that
//   applies transforms to weights would rotate once more.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "core/base/error.h"
#include "core/exporting/codec.h"
#include "core/exporting/ggml_grid.h"
#include "core/format/pack.h"
#include "core/quant/stored_spec.h"
#include "core/quant/units.h"

namespace qb {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char *kPacked = ".weight_packed", *kWeight = ".weight", *kScale = ".weight_scale", *kZero = ".weight_zero_point", *kShape = ".weight_shape", *kGlobal = ".weight_global_scale";
constexpr const char *kInputScale = ".input_scale", *kInputZero = ".input_zero_point", *kInputGlobal = ".input_global_scale";
constexpr const char *kKeyScale = ".k_scale", *kKeyZero = ".k_zero_point", *kValueScale = ".v_scale", *kValueZero = ".v_zero_point", *kHeads = "attn_head";
constexpr const char* kLocal = "local";  // groups' scales are made at each call, under a static one

enum class Kind { packed, bytes, floats, nvfp4, mxfp4, mxfp8 };

bool is_float(const QuantSpec& spec) { return spec.type.kind == NumberType::Kind::floating; }

Kind kind_of(const QuantizedLinear& linear) {
  switch (linear.weights.storage) {
    case Storage::nvfp4: return Kind::nvfp4;
    case Storage::mxfp4: return Kind::mxfp4;
    case Storage::mxfp8: return Kind::mxfp8;
    default: break;
  }
  if (is_float(linear.weights)) return Kind::floats;
  return linear.activations ? Kind::bytes : Kind::packed;
}

const char* format_name(Kind kind) {
  switch (kind) {
    case Kind::packed: return "pack-quantized";
    case Kind::bytes: return "int-quantized";
    case Kind::floats: return "float-quantized";
    case Kind::nvfp4: return "nvfp4-pack-quantized";
    case Kind::mxfp4: return "mxfp4-pack-quantized";
    case Kind::mxfp8: return "mxfp8-quantized";
  }
  return "";
}

bool is_fp4(Kind kind) { return kind == Kind::nvfp4 || kind == Kind::mxfp4; }

// Two values of E2M1 a byte, the even column in the low half: a sign and an index into 0 ½ 1 1½ 2 3 4 6.
at::Tensor pack_fp4(const at::Tensor& codes) {
  const at::Tensor index = fp4_index(codes);
  return index.slice(1, 0, index.size(1), 2).bitwise_or(index.slice(1, 1, index.size(1), 2).bitwise_left_shift(4)).to(at::kByte).contiguous();
}

at::Tensor unpack_fp4(const at::Tensor& bytes) {
  const at::Tensor index = at::stack({bytes.bitwise_and(15), bytes.bitwise_right_shift(4)}, 2).reshape({bytes.size(0), 2 * bytes.size(1)});
  return fp4_value(index);
}

// Powers of two as exponent + 127.
at::Tensor exponents(const at::Tensor& scale) { return scale.log2().round().add(127).to(at::kByte); }
at::Tensor powers(const at::Tensor& exponents) { return at::pow(2.0, exponents.to(at::kFloat) - 127); }

Json args(const QuantSpec& spec) {
  Json json = {{"num_bits", spec.type.bits}, {"type", is_float(spec) ? "float" : "int"}, {"symmetric", spec.symmetric || is_float(spec)}, {"strategy", to_text(spec.granularity)}};
  if (spec.granularity == Granularity::group) json["group_size"] = spec.group_size;
  if (spec.storage == Storage::nvfp4) json["strategy"] = "tensor_group";
  if (spec.storage != Storage::none) json["scale_dtype"] = spec.storage == Storage::nvfp4 ? "torch.float8_e4m3fn" : "torch.uint8";
  if (spec.granularity == Granularity::block) json["block_structure"] = {spec.block_rows, spec.block_cols};
  return json;
}

// The scale as it is stored: one value, or [rows, units].
std::vector<int64_t> scale_shape(const QuantizedLinear& linear) {
  const auto [rows, columns] = unit_shape(linear.weights, linear.out_features, linear.in_features);
  if (linear.weights.granularity == Granularity::tensor) return {1};
  return {rows, columns};
}


int64_t words(int64_t codes, int bits) { return (codes * bits + 31) / 32; }

class Found final : public CodedLinears {
 public:
  Found(TensorSourcePtr stored, const nlohmann::json& config, const std::string& origin) : CodedLinears(std::move(stored), origin) {
    const std::string where = origin + ": quantization_config.config_groups";
    if (!config.contains("config_groups") || !config["config_groups"].is_object() || config["config_groups"].empty())
      throw InputError(fmt::format("{}: expected an object of groups", where));
    const std::string whole = origin + ": quantization_config";
    require_known_keys(config, whole, {"quant_method", "format", "quantization_status", "config_groups", "ignore", "transform_config", "kv_cache_scheme", "sparsity_config", "global_compression_ratio",
                                       "version", "run_compressed", "dequantize", "use_optimized_inference"});
    if (const auto sparse = config.find("sparsity_config"); sparse != config.end() && sparse->is_object()) require_value(*sparse, whole + ".sparsity_config", "format", {"dense"});
    struct Group {
      std::vector<std::string> targets;
      QuantSpec weights;
      std::optional<QuantSpec> activations;
    };
    std::vector<Group> groups;
    for (const auto& [name, json] : config["config_groups"].items()) {
      const std::string place = fmt::format("{}.{}", where, name);
      Group group;
      require_known_keys(json, place, {"targets", "weights", "input_activations", "output_activations", "format"});
      require_value(json, place, "output_activations", {});
      if (!json.contains("targets") || !json["targets"].is_array()) throw InputError(fmt::format("{}: \"targets\" is missing, expected a list", place));
      for (const auto& target : json["targets"])
        if (target.is_string()) group.targets.push_back(target.get<std::string>());
      if (!json.contains("weights") || !json["weights"].is_object()) continue;  // activations or a cache alone
      group.weights = read_args(json["weights"], place + ".weights", Use::weights);
      if (json.contains("input_activations") && json["input_activations"].is_object()) group.activations = read_args(json["input_activations"], place + ".input_activations", Use::activations);
      groups.push_back(std::move(group));
    }
    read_transforms(config);
    read_cache(config);
    for (const TensorInfo& tensor : stored_->tensors()) {
      if (!tensor.name.ends_with(kScale)) continue;
      const std::string module = tensor.name.substr(0, tensor.name.size() - std::string_view(kScale).size());
      const bool packed = stored_->contains(module + kPacked);
      const TensorInfo* codes = stored_->find(module + (packed ? kPacked : kWeight));
      if (!codes) throw InputError(fmt::format("{}: tensor \"{}\" has no codes beside it, expected \"{}\" or \"{}\"", origin_, tensor.name, module + kPacked, module + kWeight));
      const Group* group = nullptr;
      for (const Group& one : groups)  // names before class names
        if (!group && named_by_name(one.targets, module)) group = &one;
      for (const Group& one : groups)
        if (!group && named_by(one.targets, module)) group = &one;
      if (!group) throw InputError(fmt::format("{}: no group's targets name \"{}\", which is in codes", where, module));
      QuantizedLinear linear;
      linear.module = module;
      linear.weights = group->weights;
      linear.activations = group->activations;
      const DType type = tensor.dtype;
      const Kind kind = kind_of(linear);
      if (linear.weights.storage == Storage::none) linear.weights.scale_type = scale_type_of(type);
      parts_.insert(tensor.name);
      parts_.insert(codes->name);
      if (is_fp4(kind)) {
        if (codes->shape.size() != 2) throw InputError(fmt::format("{}: tensor \"{}\" is no matrix", origin_, codes->name));
        linear.out_features = codes->shape[0];
        linear.in_features = 2 * codes->shape[1];
        require(*codes, DType::u8, codes->shape);
      } else if (packed) {
        const at::Tensor shape = stored_->read(part(module + kShape).name);
        if (shape.scalar_type() != at::kLong || shape.numel() != 2 || shape.min().item<int64_t>() < 1)
          throw InputError(fmt::format("{}: tensor \"{}\" is not two int64 sizes", origin_, module + kShape));
        linear.out_features = shape.flatten()[0].item<int64_t>();
        linear.in_features = shape.flatten()[1].item<int64_t>();
        require(*codes, DType::i32, {linear.out_features, words(linear.in_features, linear.weights.type.bits)});
      } else {
        if (codes->shape.size() != 2) throw InputError(fmt::format("{}: tensor \"{}\" is no matrix", origin_, codes->name));
        linear.out_features = codes->shape[0];
        linear.in_features = codes->shape[1];
        require(*codes, is_float(linear.weights) ? DType::f8_e4m3 : DType::i8, codes->shape);
      }
      if (stored_->contains(module + ".weight_g_idx"))
        throw InputError(fmt::format("{}: tensor \"{}.weight_g_idx\" puts columns into groups out of their order, which is not supported", origin_, module));
      if (kind == Kind::nvfp4 && part(module + kGlobal).elements() != 1) throw InputError(fmt::format("{}: tensor \"{}{}\" is not one value", origin_, module, kGlobal));
      if (kind == Kind::nvfp4 || kind == Kind::mxfp4 || kind == Kind::mxfp8) {
        const DType wanted = kind == Kind::nvfp4 ? DType::f8_e4m3 : DType::u8;
        if (type != wanted) throw InputError(fmt::format("{}: tensor \"{}\" is {}, expected {}", origin_, tensor.name, name_of(type), name_of(wanted)));
      }
      if (const std::string problem = misfit(linear.weights, linear.out_features, linear.in_features); !problem.empty())
        throw InputError(fmt::format("{}: \"{}\": {}", origin_, module, problem));
      if (tensor.elements() != element_count(scale_shape(linear)))
        throw InputError(fmt::format("{}: tensor \"{}\" has {} scales, {} need {}", origin_, tensor.name, tensor.elements(), describe(linear.weights), *element_count(scale_shape(linear))));
      if (!linear.weights.symmetric) {
        const auto units = unit_shape(linear.weights, linear.out_features, linear.in_features);
        const TensorInfo* zero = stored_->find(module + kZero);
        if (!zero) throw InputError(fmt::format("{}: tensor \"{}{}\" is missing: the weights are asymmetric", origin_, module, kZero));
        if (packed) require(*zero, DType::i32, {words(units.first, linear.weights.type.bits), units.second});
        parts_.insert(zero->name);
      } else if (stored_->contains(module + kZero)) {
        throw InputError(fmt::format("{}: tensor \"{}{}\" stands beside symmetric weights", origin_, module, kZero));
      }
      linear.weights = meaning_of(linear.weights);
      if (linear.activations && !linear.activations->dynamic) linear.input_grid = read_input_grid(module, *linear.activations);
      linears_.emplace(module, linear);
    }
    if (linears_.empty()) throw InputError(fmt::format("{}: no tensor \"*{}\": no weight is in codes", origin_, kScale));
  }

  bool rotated(const std::string& module) const override { return named_by(rotated_, module); }

  ScaleZero read_grid(const std::string& module) const override {
    const QuantizedLinear& linear = linears_.at(module);
    const auto units = unit_shape(linear.weights, linear.out_features, linear.in_features);
    if (const Kind kind = kind_of(linear); kind == Kind::nvfp4) {
      ScaleZero fp4;
      fp4.super = stored_->read(module + kGlobal).to(at::kFloat).reciprocal().reshape({1, 1});
      fp4.scale = stored_->read(module + kScale).to(at::kFloat) * fp4.super;
      return fp4;
    } else if (kind == Kind::mxfp4 || kind == Kind::mxfp8) {
      return {powers(stored_->read(module + kScale)), {}};
    }
    ScaleZero grid{stored_->read(module + kScale).to(at::kFloat).reshape({units.first, units.second}), {}};
    if (linear.weights.symmetric) return grid;
    const at::Tensor zero = stored_->read(module + kZero);
    const int bits = linear.weights.type.bits;
    // Packed along the rows of units, as if the transpose were weights.
    grid.zero = stored_->contains(module + kPacked) ? unpack_codes(zero.t().contiguous(), bits, units.first).t().to(at::kFloat).sub(1 << (bits - 1)) : zero.to(at::kFloat);
    grid.zero = grid.zero.reshape({units.first, units.second}).contiguous();
    return grid;
  }

  QuantizedWeight read(const std::string& module) const override {
    const QuantizedLinear& linear = linears_.at(module);
    const int bits = linear.weights.type.bits;
    at::Tensor codes;
    if (is_fp4(kind_of(linear)))
      codes = unpack_fp4(stored_->read(module + kPacked));
    else if (stored_->contains(module + kPacked))
      codes = unpack_codes(stored_->read(module + kPacked), bits, linear.in_features).to(at::kChar).sub_(1 << (bits - 1));
    else
      codes = is_float(linear.weights) ? stored_->read(module + kWeight).to(at::kFloat) : stored_->read(module + kWeight);
    return {linear.weights, codes, read_grid(module)};
  }

 private:
  InputGrid read_input_grid(const std::string& module, QuantSpec& activations) {
    auto value = [&](const char* name) {
      const at::Tensor found = stored_->read(part(module + name).name);
      if (found.numel() != 1) throw InputError(fmt::format("{}: tensor \"{}{}\" has {} values, static activations have one", origin_, module, name, found.numel()));
      return found.to(at::kFloat).item<float>();
    };
    const bool fp4 = activations.storage == Storage::nvfp4;
    const char* name = fp4 ? kInputGlobal : kInputScale;
    if (!fp4) activations.scale_type = scale_type_of(part(module + name).dtype);
    InputGrid grid{value(name), 0};
    if (!(grid.scale > 0) || !std::isfinite(grid.scale)) throw InputError(fmt::format("{}: tensor \"{}{}\" is {}, expected a positive number", origin_, module, name, grid.scale));
    if (fp4) return grid;
    if (activations.symmetric && !stored_->contains(module + kInputZero)) return grid;
    grid.zero = value(kInputZero);
    const auto [low, high] = code_bounds(activations);
    if (activations.symmetric ? grid.zero != 0 : grid.zero < low || grid.zero > high || grid.zero != std::nearbyint(grid.zero))
      throw InputError(fmt::format("{}: tensor \"{}{}\" is {}, expected {}", origin_, module, kInputZero, grid.zero, activations.symmetric ? "0 beside symmetric activations" : fmt::format("a code from {} to {}", low, high)));
    return grid;
  }

  static bool named_by_name(std::vector<std::string> targets, const std::string& module) {
    std::erase(targets, "Linear");
    return named_by(targets, module);
  }

  enum class Use { weights, activations, cache };

  static QuantSpec read_args(const nlohmann::json& json, const std::string& place, Use use) {
    const bool activations = use != Use::weights;
    auto fail = [&](const char* key, const std::string& expected) {
      throw InputError(fmt::format("{}: \"{}\" is {}, expected {}", place, key, json.contains(key) ? json[key].dump() : "missing", expected));
    };
    require_known_keys(json, place, {"num_bits", "type", "symmetric", "group_size", "strategy", "block_structure", "dynamic", "actorder", "scale_dtype", "zp_dtype", "observer", "observer_kwargs"});
    QuantSpec spec;
    const int64_t bits = json.contains("num_bits") && json["num_bits"].is_number_integer() ? json["num_bits"].get<int64_t>() : 0;
    const std::string type = json.value("type", std::string("int"));
    if (type != "int" && type != "float") fail("type", "int or float");
    if (bits < 1 || bits > 8 || (type == "float" && bits != 8 && bits != 4)) fail("num_bits", type == "float" ? "8 or 4" : "1 to 8");
    const int64_t group = json.contains("group_size") && json["group_size"].is_number_integer() ? json["group_size"].get<int64_t>() : 0;
    const std::string how = json.contains("strategy") && json["strategy"].is_string() ? json["strategy"].get<std::string>() : "tensor";
    if (activations && type == "float" && (bits == 4 || (how == "group" && group == 32 && json.contains("scale_dtype") && json["scale_dtype"] == "torch.uint8"))) {
      const bool local = how == "tensor_group" && group == 16, shared = how == "group" && group == 32;
      if (use == Use::cache || (!local && !shared)) fail("strategy", "tensor_group with group_size 16 (NVFP4) or group with 32 (MXFP4) for inputs that are 4-bit floats");
      const nlohmann::json wanted = local ? nlohmann::json(kLocal) : nlohmann::json(true);
      if (!json.contains("dynamic") || json["dynamic"] != wanted) fail("dynamic", wanted.dump());
      return input_spec_of(bits == 8 ? Storage::mxfp8 : local ? Storage::nvfp4 : Storage::mxfp4);
    }
    if (!activations && type == "float" && (bits == 4 || (how == "group" && group == 32))) {
      if (bits == 8) return qb::spec_of(Storage::mxfp8);
      if (how == "group" && group == 32) return qb::spec_of(Storage::mxfp4);
      if (how == "tensor_group" && group == 16) return qb::spec_of(Storage::nvfp4);
      fail("strategy", "tensor_group with group_size 16 (NVFP4) or group with 32 (MXFP4) for 4-bit floats");
    }
    spec.type = *NumberType::parse(type == "float" ? "e4m3" : fmt::format("int{}", bits));
    spec.symmetric = json.value("symmetric", true);
    spec.scale_type = ScaleType::f32;
    const std::string strategy = json.contains("strategy") && json["strategy"].is_string() ? json["strategy"].get<std::string>() : "tensor";
    const auto granularity = parse_granularity(strategy);
    if (!granularity || *granularity == Granularity::head) fail("strategy", "tensor, channel, group, block or token");
    spec.granularity = *granularity;
    if (spec.granularity == Granularity::group) {
      if (!json.contains("group_size") || !json["group_size"].is_number_integer() || json["group_size"].get<int64_t>() < 1) fail("group_size", "a positive integer");
      spec.group_size = json["group_size"].get<int64_t>();
    }
    if (spec.granularity == Granularity::block) {
      if (!json.contains("block_structure") || !json["block_structure"].is_array() || json["block_structure"].size() != 2) fail("block_structure", "two sizes");
      spec.block_rows = json["block_structure"][0].get<int64_t>();
      spec.block_cols = json["block_structure"][1].get<int64_t>();
    }
    if (json.contains("actorder") && json["actorder"] == "group") fail("actorder", "none or static order: groups of consecutive columns");
    if (activations) {
      const auto& dynamic = json.contains("dynamic") ? json["dynamic"] : nlohmann::json(false);
      if (dynamic != true && dynamic != false) fail("dynamic", "true or false");
      spec.dynamic = dynamic.get<bool>();
      if (use == Use::cache) return spec;
      if (const std::string problem = activation_misfit(spec, spec.granularity == Granularity::group ? spec.group_size : 1); !problem.empty()) throw InputError(fmt::format("{}: {}", place, problem));
    }
    return meaning_of(spec);
  }

  // One value, or one for each head.
  std::vector<InputGrid> read_grids(const std::string& scale_name, const std::string& zero_name, const QuantSpec& spec) {
    const at::Tensor scale = stored_->read(part(scale_name).name).to(at::kFloat).flatten();
    at::Tensor zero = at::zeros_like(scale);
    if (!spec.symmetric || stored_->contains(zero_name)) zero = stored_->read(part(zero_name).name).to(at::kFloat).flatten();
    const auto [low, high] = spec.symmetric ? std::pair(0, 0) : code_bounds(spec);
    if (zero.numel() != scale.numel()) throw InputError(fmt::format("{}: tensor \"{}\" has {} values, \"{}\" has {}", origin_, zero_name, zero.numel(), scale_name, scale.numel()));
    std::vector<InputGrid> grids;
    for (int64_t i = 0; i < scale.numel(); ++i) {
      const InputGrid grid{scale[i].item<float>(), zero[i].item<float>()};
      if (!(grid.scale > 0) || !std::isfinite(grid.scale)) throw InputError(fmt::format("{}: tensor \"{}\" holds {}, expected positive numbers", origin_, scale_name, grid.scale));
      if (grid.zero < low || grid.zero > high || grid.zero != std::nearbyint(grid.zero))
        throw InputError(fmt::format("{}: tensor \"{}\" holds {}, expected {}", origin_, zero_name, grid.zero, spec.symmetric ? "0 beside symmetric keys and values" : fmt::format("codes from {} to {}", low, high)));
      grids.push_back(grid);
    }
    return grids;
  }

  void read_cache(const nlohmann::json& config) {
    if (!config.contains("kv_cache_scheme") || config["kv_cache_scheme"].is_null()) return;
    const std::string place = origin_ + ": quantization_config.kv_cache_scheme";
    if (!config["kv_cache_scheme"].is_object()) throw InputError(fmt::format("{}: expected an object", place));
    nlohmann::json json = config["kv_cache_scheme"];
    const bool by_head = json.contains("strategy") && json["strategy"] == kHeads;
    if (by_head) json["strategy"] = to_text(Granularity::tensor);
    QuantSpec spec = read_args(json, place, Use::cache);
    if (by_head) spec.granularity = Granularity::head;
    if (by_head && spec.dynamic) throw InputError(fmt::format("{}: \"dynamic\" is true, expected false with strategy {}", place, kHeads));
    if (spec.dynamic && spec.granularity != Granularity::group)
      throw InputError(fmt::format("{}: \"strategy\" is {} with ranges of each call, which are of all tokens of it; expected group, or static ranges (\"dynamic\": false)", place, json["strategy"].dump()));
    if (const std::string problem = cache_misfit(spec, spec.group_size); !problem.empty()) throw InputError(fmt::format("{}: {}", place, problem));
    cache_ = spec;
    if (spec.dynamic) return;
    for (const TensorInfo& tensor : stored_->tensors()) {
      if (!tensor.name.ends_with(kKeyScale)) continue;
      const std::string module = tensor.name.substr(0, tensor.name.size() - std::string_view(kKeyScale).size());
      cache_->scale_type = scale_type_of(tensor.dtype);
      cache_grids_.emplace(module, CacheGrids{read_grids(tensor.name, module + kKeyZero, spec), read_grids(module + kValueScale, module + kValueZero, spec)});
    }
  }

  // Whatever is computed at run time must be understood: only what export writes is.
  void read_transforms(const nlohmann::json& config) {
    if (!config.contains("transform_config") || config["transform_config"].is_null() || config["transform_config"] == nlohmann::json::object()) return;  // written empty where there are none
    const std::string where = origin_ + ": quantization_config.transform_config";
    const auto& groups = config["transform_config"].is_object() ? config["transform_config"].value("config_groups", nlohmann::json()) : nlohmann::json();
    if (!groups.is_object()) throw InputError(fmt::format("{}: expected \"config_groups\", an object of groups", where));
    for (const auto& [name, group] : groups.items()) {
      const std::string place = fmt::format("{}.config_groups.{}", where, name);
      auto require = [&](const nlohmann::json& of, const char* key, const nlohmann::json& wanted, bool optional) {
        if (of.is_object() && (of.contains(key) ? of[key] == wanted : optional)) return;
        throw InputError(fmt::format("{}: \"{}\" is {}, expected {}", place, key, of.is_object() && of.contains(key) ? of[key].dump() : "missing", wanted.dump()));
      };
      require(group, "type", "hadamard", false);
      require(group, "randomize", false, true);
      require(group, "head_dim", nullptr, true);
      if (!group.contains("apply") || !group["apply"].is_array()) throw InputError(fmt::format("{}: \"apply\" is missing, expected a list", place));
      for (const auto& apply : group["apply"]) {
        require(apply, "location", "input", false);
        require(apply, "ignore", nlohmann::json::array(), true);
        if (!apply.contains("targets") || !apply["targets"].is_array()) throw InputError(fmt::format("{}: \"targets\" is missing, expected a list", place));
        for (const auto& target : apply["targets"]) {
          if (!target.is_string() || target == "Linear") throw InputError(fmt::format("{}: target {}, expected names of modules", place, target.dump()));
          rotated_.push_back(target.get<std::string>());
        }
      }
    }
  }

  std::vector<std::string> rotated_;  // patterns
};

class CompressedTensors final : public Codec {
 public:
  std::vector<PlannedTensor> plan(const QuantizedLinear& linear, const std::string& module, const LinearReaderPtr& reader) const override {
    const Kind kind = kind_of(linear);
    const int bits = linear.weights.type.bits;
    const at::ScalarType scale_type = scalar_type_of(linear.weights.scale_type);
    const std::vector<int64_t> grid = scale_shape(linear);
    std::vector<PlannedTensor> all;
    if (linear.input_grid) {
      const at::ScalarType type = scalar_type_of(linear.activations->scale_type);
      const bool fp4 = linear.activations->storage == Storage::nvfp4;
      all.push_back({module + (fp4 ? kInputGlobal : kInputScale), dtype_of(type), {1}, [=, value = linear.input_grid->scale] { return at::full({1}, value, type); }});
      if (!linear.activations->symmetric) all.push_back({module + kInputZero, DType::i8, {1}, [value = linear.input_grid->zero] { return at::full({1}, value, at::kChar); }});
    }
    if (is_fp4(kind) || kind == Kind::mxfp8) {
      if (is_fp4(kind))
        all.push_back({module + kPacked, DType::u8, {linear.out_features, linear.in_features / 2}, [=] { return pack_fp4(reader->weight(linear).codes); }});
      else
        all.push_back({module + kWeight, DType::f8_e4m3, {linear.out_features, linear.in_features}, [=] { return reader->weight(linear).codes.to(at::kFloat8_e4m3fn); }});
      if (kind == Kind::nvfp4) {
        all.push_back({module + kScale, DType::f8_e4m3, grid, [=] { return (reader->grid(linear).scale / reader->grid(linear).super).to(at::kFloat8_e4m3fn); }});
        all.push_back({module + kGlobal, DType::f32, {1}, [=] { return reader->grid(linear).super.reciprocal().reshape({1}); }});  // readers divide by it
      } else {
        all.push_back({module + kScale, DType::u8, grid, [=] { return exponents(reader->grid(linear).scale); }});
      }
      return all;
    }
    if (kind == Kind::packed) {
      all.push_back({module + kPacked, DType::i32, {linear.out_features, words(linear.in_features, bits)},
                     [=] { return pack_codes(reader->weight(linear).codes.to(at::kByte).add_(1 << (bits - 1)), bits); }});
      all.push_back({module + kShape, DType::i64, {2}, [=] { return at::tensor({linear.out_features, linear.in_features}, at::kLong); }});
    } else if (kind == Kind::bytes) {
      all.push_back({module + kWeight, DType::i8, {linear.out_features, linear.in_features}, [=] { return reader->weight(linear).codes; }});
    } else {
      all.push_back({module + kWeight, DType::f8_e4m3, {linear.out_features, linear.in_features}, [=] { return reader->weight(linear).codes.to(at::kFloat8_e4m3fn); }});
    }
    all.push_back({module + kScale, dtype_of(scale_type), grid, [=] { return reader->grid(linear).scale.to(scale_type).reshape(grid); }});
    if (!linear.weights.symmetric) {
      if (kind == Kind::packed)
        all.push_back({module + kZero, DType::i32, {words(grid[0], bits), grid[1]},
                       [=] { return pack_codes(reader->grid(linear).zero.t().add(1 << (bits - 1)).to(at::kByte), bits).t().contiguous(); }});
      else
        all.push_back({module + kZero, DType::i8, grid, [=] { return reader->grid(linear).zero.to(at::kChar).reshape(grid); }});
    }
    return all;
  }

  std::vector<PlannedTensor> plan_cache(const QuantizedCache& cache, const std::string& module) const override {
    const at::ScalarType type = scalar_type_of(cache.spec.scale_type);
    std::vector<PlannedTensor> all;
    for (const auto& [scale, zero, grids] : {std::tuple{kKeyScale, kKeyZero, &cache.grids.keys}, {kValueScale, kValueZero, &cache.grids.values}}) {
      const auto count = static_cast<int64_t>(grids->size());
      if (count == 0) continue;  // dynamic
      std::vector<int64_t> shape = {count};
      if (cache.spec.granularity == Granularity::head) shape = {count, 1, 1};
      auto values = [shape, grids = *grids](float InputGrid::* member, at::ScalarType as) {
        std::vector<float> numbers;
        for (const InputGrid& grid : grids) numbers.push_back(grid.*member);
        return at::tensor(numbers).to(as).view(shape);
      };
      all.push_back({module + scale, dtype_of(type), shape, [=] { return values(&InputGrid::scale, type); }});
      if (!cache.spec.symmetric) all.push_back({module + zero, DType::i8, shape, [=] { return values(&InputGrid::zero, at::kChar); }});
    }
    return all;
  }

  Json config(const CheckpointContent& content) const override {
    // One group for each scheme that there is.
    struct Group {
      const QuantizedLinear* like;
      std::vector<std::string> modules;
    };
    std::vector<Group> groups;
    for (const auto& [module, linear] : content.coded) {
      auto same = std::find_if(groups.begin(), groups.end(), [&, l = linear](const Group& g) {
        QuantSpec a = g.like->weights, b = l->weights;
        a.scale_type = b.scale_type;
        return a == b && g.like->activations == l->activations;
      });
      if (same == groups.end()) same = groups.insert(groups.end(), Group{linear, {}});
      same->modules.push_back(module);
    }
    Json of_groups = Json::object();
    std::set<std::string> formats;
    for (size_t i = 0; i < groups.size(); ++i) {
      std::vector<std::string> targets = {"Linear"};
      if (groups.size() > 1) {
        std::vector<std::string> others;
        for (size_t k = 0; k < groups.size(); ++k)
          if (k != i) others.insert(others.end(), groups[k].modules.begin(), groups[k].modules.end());
        targets = module_patterns(groups[i].modules, others);
      } else {
        targets.insert(targets.end(), content.vocabulary.begin(), content.vocabulary.end());
      }
      const QuantizedLinear& like = *groups[i].like;
      Json group = {{"targets", targets}, {"weights", args(like.weights)}, {"input_activations", nullptr}, {"output_activations", nullptr}};
      if (groups.size() > 1) group["format"] = format_name(kind_of(like));
      group["weights"]["dynamic"] = false;
      if (like.activations) {
        group["input_activations"] = args(*like.activations);
        group["input_activations"]["dynamic"] = like.activations->dynamic;
        if (like.activations->storage == Storage::nvfp4) group["input_activations"]["dynamic"] = kLocal;
      }
      formats.insert(format_name(kind_of(like)));
      of_groups[fmt::format("group_{}", i)] = std::move(group);
    }
    std::vector<std::string> coded;
    for (const auto& [module, linear] : content.coded) coded.push_back(module);
    Json all = {{"quant_method", "compressed-tensors"}, {"format", formats.size() == 1 ? *formats.begin() : "mixed-precision"}, {"quantization_status", "compressed"},
            {"config_groups", of_groups}, {"ignore", module_patterns(content.floats, coded)}, {"kv_cache_scheme", nullptr}};
    if (content.cache) {
      Json& cache = all["kv_cache_scheme"] = args(*content.cache);
      if (content.cache->granularity == Granularity::head) cache["strategy"] = kHeads;
      cache["dynamic"] = content.cache->dynamic;
    }
    if (!content.rotated.empty()) {
      std::vector<std::string> others;
      for (const std::vector<std::string>& modules : {coded, content.floats})
        for (const std::string& module : modules)
          if (std::find(content.rotated.begin(), content.rotated.end(), module) == content.rotated.end()) others.push_back(module);
      const Json input = {{"targets", module_patterns(content.rotated, others)}, {"location", "input"}};
      all["transform_config"] = {{"config_groups", {{"online", {{"type", "hadamard"}, {"apply", Json::array({input})}}}}}};
    }
    return all;
  }

  std::unique_ptr<CodedLinears> find(const TensorSourcePtr& stored, const nlohmann::json& config, const std::string& origin) const override {
    return std::make_unique<Found>(stored, config, origin);
  }
};

}  // namespace

const Codec& compressed_tensors_codec() {
  static const CompressedTensors codec;
  return codec;
}

}  // namespace qb
