// GPTQ's and AWQ's layouts: 32-bit words of codes with the input features along the rows. What readers trip over:
// - GPTQ's first layout stores zero points less one; a zero point of 0 would borrow from its neighbour, so it holds symmetric weights only;
// - AutoAWQ's words hold output features 0 2 4 6 1 3 5 7 from the lowest four bits up, and zero points as they are;
// - which linears stay float is said by "dynamic" to GPTQModel and vLLM, by "modules_to_not_convert" (parts of names) to AWQ's readers.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>

#include "core/base/error.h"
#include "core/exporting/codec.h"
#include "core/format/pack.h"
#include "core/quant/stored_spec.h"
#include "core/quant/units.h"

namespace qb {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char *kCodes = ".qweight", *kZeros = ".qzeros", *kScales = ".scales", *kOrder = ".g_idx";
constexpr std::array<int64_t, 8> kAwqOrder = {0, 2, 4, 6, 1, 3, 5, 7};

int64_t groups_of(const QuantizedLinear& linear) { return unit_shape(linear.weights, linear.out_features, linear.in_features).second; }
int64_t group_size_of(const QuantizedLinear& linear) { return linear.weights.granularity == Granularity::group ? linear.weights.group_size : -1; }

// Zero points of symmetric weights as unsigned codes: in the middle.
at::Tensor unsigned_zeros(const ScaleZero& grid, const QuantizedLinear& linear) {
  const int middle = 1 << (linear.weights.type.bits - 1);
  const at::Tensor zero = grid.zero.defined() ? grid.zero.add(middle) : at::full_like(grid.scale, middle);
  return zero.to(at::kByte);
}

// Rows of words in AutoAWQ's order of eight.
at::Tensor awq_order(const at::Tensor& rows, bool back) {
  std::array<int64_t, 8> order = kAwqOrder;
  if (back)
    for (int64_t i = 0; i < 8; ++i) order[static_cast<size_t>(kAwqOrder[static_cast<size_t>(i)])] = i;
  const at::Tensor index = at::tensor(at::ArrayRef<int64_t>(order.data(), order.size()), at::kLong);
  return rows.reshape({rows.size(0), -1, 8}).index_select(2, index).reshape(rows.sizes()).contiguous();
}

struct Settings {
  int bits = 4;
  int64_t group_size = 128;
  bool symmetric = true;
  bool less_one = false;  // stored zero points
};

class Found final : public CodedLinears {
 public:
  Found(TensorSourcePtr stored, const Settings& settings, bool awq, const std::string& origin) : CodedLinears(std::move(stored), origin), settings_(settings), awq_(awq) {
    for (const TensorInfo& tensor : stored_->tensors()) {
      if (!tensor.name.ends_with(kCodes)) continue;
      const std::string module = tensor.name.substr(0, tensor.name.size() - std::string_view(kCodes).size());
      const int per_word = 32 / (awq ? 4 : settings.bits);
      const TensorInfo& scales = part(module + kScales);
      if (tensor.dtype != DType::i32 || tensor.shape.size() != 2) fail(tensor, "I32 with two dimensions");
      QuantizedLinear linear;
      linear.module = module;
      if (scales.shape.size() != 2) fail(scales, "two dimensions, [groups, out]");
      linear.out_features = awq ? tensor.shape[1] * per_word : tensor.shape[1];
      linear.in_features = awq ? tensor.shape[0] : tensor.shape[0] * 32 / settings.bits;
      linear.weights.type.bits = settings.bits;
      linear.weights.symmetric = settings.symmetric;
      linear.weights.granularity = settings.group_size > 0 ? Granularity::group : Granularity::channel;
      linear.weights.group_size = settings.group_size;
      linear.weights.scale_type = scale_type_of(scales.dtype);
      if (const std::string problem = misfit(linear.weights, linear.out_features, linear.in_features); !problem.empty())
        throw InputError(fmt::format("{}: \"{}\": {}", origin_, module, problem));
      linear.weights = meaning_of(linear.weights);
      const std::vector<int64_t> expected = {groups_of(linear), linear.out_features};
      if (scales.shape != expected) fail(scales, fmt::format("[{}]", fmt::join(expected, ", ")));
      require(part(module + kZeros), DType::i32, {groups_of(linear), (linear.out_features * settings.bits + 31) / 32});
      parts_.insert(tensor.name);
      if (stored_->contains(module + kOrder)) {
        parts_.insert(module + kOrder);
        const at::Tensor order = stored_->read(module + kOrder);
        const int64_t g = settings.group_size > 0 ? settings.group_size : linear.in_features;
        const at::Tensor plain = at::floor_divide(at::arange(linear.in_features, at::kLong), g);
        if (order.numel() != linear.in_features || !at::equal(order.to(at::kLong).flatten(), plain))
          throw InputError(fmt::format("{}: tensor \"{}{}\" puts columns into groups out of their order (desc_act), which is not supported", origin_, module, kOrder));
      }
      linears_.emplace(module, linear);
    }
    if (linears_.empty()) throw InputError(fmt::format("{}: no tensor \"*{}\": no weight is in codes", origin_, kCodes));
  }

  ScaleZero read_grid(const std::string& module) const override {
    const QuantizedLinear& linear = linears_.at(module);
    ScaleZero grid{stored_->read(module + kScales).to(at::kFloat).t().contiguous(), {}};
    at::Tensor zero = unpack_codes(stored_->read(module + kZeros), settings_.bits, linear.out_features);  // [groups, out]
    if (awq_) zero = awq_order(zero, true);
    at::Tensor value = zero.to(at::kInt);
    // The first layout's numbers wrap around where a zero point of 0 was stored less one.
    if (settings_.less_one) value = value.add(1).bitwise_and((1 << settings_.bits) - 1);
    const int middle = 1 << (settings_.bits - 1);
    if (!linear.weights.symmetric) {
      grid.zero = value.sub(middle).to(at::kFloat).t().contiguous();
    } else if (!value.eq(middle).all().item<bool>()) {
      throw InputError(fmt::format("{}: tensor \"{}{}\" has zero points other than {} although the weights are symmetric; is it of the other GPTQ layout (checkpoint_format)?", origin_, module,
                                   kZeros, settings_.less_one ? middle - 1 : middle));
    }
    return grid;
  }

  QuantizedWeight read(const std::string& module) const override {
    const QuantizedLinear& linear = linears_.at(module);
    const at::Tensor words = stored_->read(module + kCodes);
    at::Tensor codes;
    if (awq_)
      codes = awq_order(unpack_codes(words, 4, linear.out_features), true).t().contiguous();
    else
      codes = unpack_codes(words.t().contiguous(), settings_.bits, linear.in_features);
    return {linear.weights, codes.to(at::kChar).sub_(1 << (settings_.bits - 1)), read_grid(module)};
  }

 private:
  Settings settings_;
  bool awq_;
};

int64_t setting(const nlohmann::json& config, const char* key, const std::string& origin, std::initializer_list<int64_t> allowed) {
  const bool integer = config.contains(key) && config[key].is_number_integer();
  const int64_t value = integer ? config[key].get<int64_t>() : 0;
  const bool known = allowed.size() == 0 ? value > 0 || value == -1 : std::find(allowed.begin(), allowed.end(), value) != allowed.end();
  if (!integer || !known)
    throw InputError(fmt::format("{}: quantization_config.{} is {}, expected {}", origin, key, config.contains(key) ? config[key].dump() : "missing",
                                 allowed.size() == 0 ? "a positive integer or -1" : fmt::format("one of {}", fmt::join(allowed, ", "))));
  return value;
}

class Gptq final : public Codec {
 public:
  explicit Gptq(bool v2) : v2_(v2) {}

  std::vector<PlannedTensor> plan(const QuantizedLinear& linear, const std::string& module, const LinearReaderPtr& reader) const override {
    const int bits = linear.weights.type.bits;
    const int64_t out = linear.out_features, in = linear.in_features, groups = groups_of(linear), g = linear.weights.granularity == Granularity::group ? linear.weights.group_size : in;
    const bool less_one = !v2_;
    return {{module + kCodes, DType::i32, {in * bits / 32, out},
             [=] { return pack_codes(reader->weight(linear).codes.to(at::kByte).add_(1 << (bits - 1)), bits).t().contiguous(); }},
            {module + kZeros, DType::i32, {groups, out * bits / 32},
             [=] { return pack_codes(unsigned_zeros(reader->grid(linear), linear).t().sub(less_one ? 1 : 0).contiguous(), bits); }},
            {module + kOrder, DType::i32, {in}, [=] { return at::floor_divide(at::arange(in, at::kInt), g).to(at::kInt); }},
            {module + kScales, DType::f16, {groups, out}, [=] { return reader->grid(linear).scale.t().to(at::kHalf).contiguous(); }}};
  }

  Json config(const CheckpointContent& content) const override {
    const QuantizedLinear& first = *content.coded.front().second;
    Json json = {{"quant_method", "gptq"}, {"bits", first.weights.type.bits}, {"group_size", group_size_of(first)}, {"desc_act", false}, {"sym", first.weights.symmetric},
                 {"lm_head", std::find(content.floats.begin(), content.floats.end(), "lm_head") == content.floats.end()}, {"checkpoint_format", v2_ ? "gptq_v2" : "gptq"}, {"pack_dtype", "int32"}};
    std::vector<std::string> coded;
    Json dynamic = Json::object();
    for (const auto& [module, linear] : content.coded) coded.push_back(module);
    for (const std::string& pattern : module_patterns(content.floats, coded)) {
      if (pattern == "lm_head") continue;  // said by its own key
      dynamic[(pattern.starts_with("re:") ? "-:" + pattern.substr(3) : fmt::format("-:^{}$", pattern))] = Json::object();
    }
    if (!dynamic.empty()) json["dynamic"] = dynamic;
    return json;
  }

  std::unique_ptr<CodedLinears> find(const TensorSourcePtr& stored, const nlohmann::json& config, const std::string& origin) const override {
    const std::string place = origin + ": quantization_config";
    // How it was made, by the names of AutoGPTQ, transformers and GPTQModel; "dynamic" says of single modules what their tensors' shapes say.
    require_known_keys(config, place,
                       {"quant_method", "bits", "group_size", "sym", "desc_act", "lm_head", "checkpoint_format", "format", "method", "pack_dtype", "is_marlin_format", "rotation", "adapter", "activation",
                        "preprocessors", "smoother", "smooth", "dynamic", "meta", "damp_percent", "damp_auto_increment", "static_groups", "true_sequential", "mse", "act_group_aware", "gptaq", "foem", "hessian",
                        "mock_quantization", "model_name_or_path", "model_file_base_name", "tokenizer", "dataset", "backend", "model_seqlen", "block_name_to_quantize", "module_name_preceding_first_block",
                        "batch_size", "pad_token_id", "max_input_length", "cache_block_outputs", "modules_in_block_to_quantize", "modules_to_not_convert", "use_cuda_fp16", "use_exllama", "disable_exllama",
                        "exllama_config", "fallback", "failsafe", "quantizer", "uri", "device", "pack_impl", "offload_to_disk", "offload_to_disk_path", "version"});
    const std::string format = config.value("checkpoint_format", std::string("gptq"));
    for (const char* key : {"checkpoint_format", "format"}) require_value(config, place, key, {format == "gptq_v2" ? "gptq_v2" : "gptq"});
    require_value(config, place, "method", {"gptq"});
    require_value(config, place, "pack_dtype", {"int32"});
    require_value(config, place, "is_marlin_format", {false});
    for (const char* key : {"rotation", "adapter", "activation", "smoother", "smooth"}) require_value(config, place, key, {});
    require_value(config, place, "preprocessors", {nlohmann::json::array()});
    Settings settings;
    settings.bits = static_cast<int>(setting(config, "bits", origin, {2, 3, 4, 8}));
    settings.group_size = setting(config, "group_size", origin, {});
    settings.symmetric = config.value("sym", true);
    settings.less_one = config.value("checkpoint_format", std::string("gptq")) != "gptq_v2";
    return std::make_unique<Found>(stored, settings, false, origin);
  }

 private:
  bool v2_;
};

class Awq final : public Codec {
 public:
  std::vector<PlannedTensor> plan(const QuantizedLinear& linear, const std::string& module, const LinearReaderPtr& reader) const override {
    const int64_t out = linear.out_features, in = linear.in_features, groups = groups_of(linear);
    return {{module + kCodes, DType::i32, {in, out / 8}, [=] { return pack_codes(awq_order(reader->weight(linear).codes.to(at::kByte).add_(8).t().contiguous(), false), 4); }},
            {module + kZeros, DType::i32, {groups, out / 8}, [=] { return pack_codes(awq_order(unsigned_zeros(reader->grid(linear), linear).t().contiguous(), false), 4); }},
            {module + kScales, DType::f16, {groups, out}, [=] { return reader->grid(linear).scale.t().to(at::kHalf).contiguous(); }}};
  }

  Json config(const CheckpointContent& content) const override {
    const QuantizedLinear& first = *content.coded.front().second;
    Json json = {{"quant_method", "awq"}, {"bits", 4}, {"group_size", group_size_of(first)}, {"zero_point", true}, {"version", "gemm"}, {"modules_to_not_convert", nullptr}};
    std::vector<std::string> floats;
    for (const std::string& module : content.floats)
      if (module != "lm_head") floats.push_back(module);
    if (!floats.empty()) json["modules_to_not_convert"] = floats;
    return json;
  }

  std::unique_ptr<CodedLinears> find(const TensorSourcePtr& stored, const nlohmann::json& config, const std::string& origin) const override {
    require_known_keys(config, origin + ": quantization_config",
                       {"quant_method", "bits", "w_bit", "group_size", "q_group_size", "zero_point", "version", "backend", "modules_to_not_convert", "fuse_max_seq_len", "modules_to_fuse", "do_fuse",
                        "exllama_config", "format"});
    require_value(config, origin + ": quantization_config", "format", {"gemm"});
    Settings settings;
    settings.bits = static_cast<int>(setting(config, config.contains("bits") ? "bits" : "w_bit", origin, {4}));
    settings.group_size = setting(config, config.contains("group_size") ? "group_size" : "q_group_size", origin, {});
    settings.symmetric = !config.value("zero_point", true);
    std::string version = config.value("version", std::string("gemm"));
    std::transform(version.begin(), version.end(), version.begin(), [](unsigned char c) { return std::tolower(c); });
    if (version != "gemm") throw InputError(fmt::format("{}: quantization_config.version is \"{}\", expected gemm", origin, version));
    return std::make_unique<Found>(stored, settings, true, origin);
  }
};

}  // namespace

const Codec& gptq_codec(bool v2) {
  static const Gptq first(false), second(true);
  return v2 ? second : first;
}

const Codec& awq_codec() {
  static const Awq codec;
  return codec;
}

}  // namespace qb
