// MLX's affine layout, as mlx-lm loads it: words of codes along the inputs, scales and biases a group; weight = scale · code + bias, codes from 0.
// What readers trip over:
// - mlx-lm reads the key "quantization"; "quantization_config" holds the same for who looks there, without a quant_method;
// - what has other bits or groups than the file as a whole has an object of its own under its module's name there, whose keys are
//   arguments of a function: no key of ours may stand in it;
// - a linear is in codes where it has scales: floats need no list;
// - products are computed in the wider of the inputs' and the scales' types: float16 scales in a bfloat16 model make them float32.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/base/error.h"
#include "core/exporting/codec.h"
#include "core/format/pack.h"
#include "core/quant/stored_spec.h"
#include "core/quant/units.h"

namespace qb {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char *kCodes = ".weight", *kScales = ".scales", *kBiases = ".biases";
constexpr const char* kSymmetric = "symmetric_modules";  // ours: which linears have all zero points in the middle; not there: biases are any numbers

int middle_of(const QuantizedLinear& linear) { return 1 << (linear.weights.type.bits - 1); }

// −(zero + 2^(bits−1)) · scale as it is stored.
at::Tensor biases(const ScaleZero& grid, const QuantizedLinear& linear) {
  const at::Tensor first = grid.zero.defined() ? grid.zero.add(middle_of(linear)) : at::full_like(grid.scale, middle_of(linear));
  return first.mul(grid.scale).neg_().to(scalar_type_of(linear.weights.scale_type));
}

struct Affine {
  int bits = 4;
  int64_t group_size = 64;
};

Affine affine(const nlohmann::json& config, const std::string& where) {
  const auto integer = [&](const char* key, std::initializer_list<int64_t> allowed) {
    const bool there = config.contains(key) && config[key].is_number_integer();
    const int64_t value = there ? config[key].get<int64_t>() : 0;
    if (!there || std::find(allowed.begin(), allowed.end(), value) == allowed.end())
      throw InputError(fmt::format("{}.{} is {}, expected one of {}", where, key, config.contains(key) ? config[key].dump() : "missing", fmt::join(allowed, ", ")));
    return value;
  };
  if (const std::string mode = config.value("mode", std::string("affine")); mode != "affine") throw InputError(fmt::format("{}.mode is \"{}\", expected affine", where, mode));
  return {static_cast<int>(integer("bits", {2, 3, 4, 5, 6, 8})), integer("group_size", {32, 64, 128})};
}

class Found final : public CodedLinears {
 public:
  Found(TensorSourcePtr stored, const nlohmann::json& config, const std::string& origin) : CodedLinears(std::move(stored), origin) {
    const std::string where = origin + ": quantization";
    const Affine all = affine(config, where);
    for (const auto& [key, value] : config.items())  // objects and truth values are of modules
      if (!value.is_object() && !value.is_boolean()) require_known_keys({{key, value}}, where, {"quant_method", "bits", "group_size", "mode", kSymmetric});
    integers_ = config.contains(kSymmetric);
    if (integers_ && !config[kSymmetric].is_array()) throw InputError(fmt::format("{}.{} is {}, expected a list of names", where, kSymmetric, config[kSymmetric].dump()));
    const auto symmetric = integers_ ? config[kSymmetric].get<std::vector<std::string>>() : std::vector<std::string>{};
    for (const TensorInfo& scales : stored_->tensors()) {
      if (!scales.name.ends_with(kScales)) continue;
      const std::string module = scales.name.substr(0, scales.name.size() - std::string_view(kScales).size());
      const auto own = config.find(module);
      const Affine one = own != config.end() && own->is_object() ? affine(*own, where + "." + module) : all;
      const TensorInfo &codes = part(module + kCodes), &biases = part(module + kBiases);
      parts_.insert(scales.name);
      if (codes.dtype != DType::u32 || codes.shape.size() != 2) fail(codes, "U32 with two dimensions");
      QuantizedLinear linear;
      linear.module = module;
      linear.out_features = codes.shape[0];
      linear.in_features = codes.shape[1] * 32 / one.bits;
      linear.weights.type.bits = one.bits;
      linear.weights.granularity = Granularity::group;
      linear.weights.group_size = one.group_size;
      linear.weights.symmetric = named_by(symmetric, module);
      linear.weights.round_zero_point = integers_;
      linear.weights.scale_type = scale_type_of(scales.dtype);
      if (const std::string problem = misfit(linear.weights, linear.out_features, linear.in_features); !problem.empty())
        throw InputError(fmt::format("{}: \"{}\": {}", origin_, module, problem));
      linear.weights = meaning_of(linear.weights);
      for (const TensorInfo* numbers : {&scales, &biases})
        require(*numbers, dtype_of(scalar_type_of(linear.weights.scale_type)), {linear.out_features, linear.in_features / one.group_size});
      linears_.emplace(module, linear);
    }
    if (linears_.empty()) throw InputError(fmt::format("{}: no tensor \"*{}\": no weight is in codes", origin_, kScales));
  }

  ScaleZero read_grid(const std::string& module) const override {
    const QuantizedLinear& linear = linears_.at(module);
    ScaleZero grid{stored_->read(module + kScales).to(at::kFloat), {}};
    const at::Tensor stored = stored_->read(module + kBiases);
    at::Tensor first = stored.to(at::kFloat).div(grid.scale).neg_();
    if (integers_) first.round_();
    if (!linear.weights.symmetric) grid.zero = first.sub_(middle_of(linear));
    if (integers_ && !at::equal(biases(grid, linear), stored))
      throw InputError(fmt::format("{}: tensor \"{}{}\" does not hold {} times the scales although quantization.{} is there", origin_, module, kBiases,
                                   linear.weights.symmetric ? std::to_string(-middle_of(linear)) : "integers", kSymmetric));
    return grid;
  }

  QuantizedWeight read(const std::string& module) const override {
    const QuantizedLinear& linear = linears_.at(module);
    const at::Tensor codes = unpack_codes(stored_->read(module + kCodes).view(at::kInt), linear.weights.type.bits, linear.in_features);
    return {linear.weights, codes.sub(middle_of(linear)).to(at::kChar), read_grid(module)};
  }

 private:
  bool integers_ = false;  // zero points are
};

class Mlx final : public Codec {
 public:
  std::vector<PlannedTensor> plan(const QuantizedLinear& linear, const std::string& module, const LinearReaderPtr& reader) const override {
    const int bits = linear.weights.type.bits;
    const int64_t out = linear.out_features, in = linear.in_features;
    const at::ScalarType numbers = scalar_type_of(linear.weights.scale_type);
    const std::vector<int64_t> groups = {out, in / linear.weights.group_size};
    return {{module + kCodes, DType::u32, {out, in * bits / 32},
             [=] { return pack_codes(reader->weight(linear).codes.to(at::kShort).add_(middle_of(linear)).to(at::kByte), bits).view(at::kUInt32); }},
            {module + kScales, dtype_of(numbers), groups, [=] { return reader->grid(linear).scale.to(numbers); }},
            {module + kBiases, dtype_of(numbers), groups, [=] { return biases(reader->grid(linear), linear); }}};
  }

  Json config(const CheckpointContent& content) const override {
    // What most linears have stands for all of them.
    std::map<std::pair<int64_t, int>, size_t> counts;
    const auto kind = [](const QuantizedLinear* linear) { return std::pair{linear->weights.group_size, linear->weights.type.bits}; };
    for (const auto& [module, linear] : content.coded) ++counts[kind(linear)];
    const auto most = std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second < b.second; })->first;
    Json json = {{"group_size", most.first}, {"bits", most.second}, {"mode", "affine"}};
    std::vector<std::string> symmetric, others;
    for (const auto& [module, linear] : content.coded) {
      (linear->weights.symmetric ? symmetric : others).push_back(module);
      if (const auto own = kind(linear); own != most) json[module] = {{"group_size", own.first}, {"bits", own.second}, {"mode", "affine"}};
    }
    json[kSymmetric] = module_patterns(symmetric, others);
    return json;
  }

  std::unique_ptr<CodedLinears> find(const TensorSourcePtr& stored, const nlohmann::json& config, const std::string& origin) const override {
    return std::make_unique<Found>(stored, config, origin);
  }
};

}  // namespace

const Codec& mlx_codec() {
  static const Mlx codec;
  return codec;
}

}  // namespace qb
