#include "core/exporting/codec.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <regex>

#include "core/base/error.h"
#include "core/model/shown_value.h"

namespace qb {

const QuantizedWeight& LinearReader::weight(const QuantizedLinear& linear) {
  if (weight_of_ != linear.module) {
    weight_ = {};  // one at a time
    weight_ = model_.read(linear);
    weight_of_ = linear.module;
  }
  return weight_;
}

const ScaleZero& LinearReader::grid(const QuantizedLinear& linear) {
  if (weight_of_ == linear.module) return weight_.grid;
  if (grid_of_ != linear.module) {
    grid_ = model_.read_grid(linear);
    grid_of_ = linear.module;
  }
  return grid_;
}

namespace {

const std::vector<CodedFormat>& coded_formats() {
  static const std::vector<CodedFormat> all = {
      {"compressed-tensors", "compressed-tensors", "", "config_groups", compressed_tensors_codec},
      {"gptq_v2", "gptq", "gptq_v2", "", []() -> const Codec& { return gptq_codec(true); }},
      {"gptq", "gptq", "", "", []() -> const Codec& { return gptq_codec(false); }},
      {"awq", "awq", "", "", awq_codec},
      {"mlx", "mlx", "", "", mlx_codec},
  };
  return all;
}

}  // namespace

const CodedFormat* coded_format(const std::string& format) {
  for (const CodedFormat& row : coded_formats())
    if (row.format == format) return &row;
  return nullptr;
}

const CodedFormat* coded_format_of(const nlohmann::json& config) {
  const auto says = [&](const char* key, const char* value) { return config.contains(key) && config[key].is_string() && config[key] == value; };
  for (const CodedFormat& row : coded_formats())
    if (says("quant_method", row.quant_method) && (!*row.layout || says("checkpoint_format", row.layout))) return &row;
  return nullptr;
}

std::string known_quant_methods() {
  std::vector<std::string> names;
  for (const CodedFormat& row : coded_formats())
    if (std::find(names.begin(), names.end(), row.quant_method) == names.end()) names.emplace_back(row.quant_method);
  return fmt::format("{}", fmt::join(names, ", "));
}

std::string without_weight(const std::string& tensor) {
  constexpr std::string_view suffix = ".weight";
  return tensor.ends_with(suffix) ? tensor.substr(0, tensor.size() - suffix.size()) : tensor;
}

ScaleType scale_type_of(DType stored) { return stored == DType::f16 ? ScaleType::f16 : stored == DType::bf16 ? ScaleType::bf16 : ScaleType::f32; }

at::ScalarType scalar_type_of(ScaleType type) { return type == ScaleType::f16 ? at::kHalf : type == ScaleType::bf16 ? at::kBFloat16 : at::kFloat; }

const TensorInfo& CodedLinears::part(const std::string& name) {
  const TensorInfo* found = stored_->find(name);
  if (!found) throw InputError(fmt::format("{}: tensor \"{}\" is missing", origin_, name));
  parts_.insert(name);
  return *found;
}

void CodedLinears::fail(const TensorInfo& tensor, const std::string& expected) const {
  throw InputError(fmt::format("{}: tensor \"{}\" is {} [{}], expected {}", origin_, tensor.name, name_of(tensor.dtype), fmt::join(tensor.shape, ", "), expected));
}

void CodedLinears::require(const TensorInfo& tensor, DType type, const std::vector<int64_t>& shape) const {
  if (tensor.dtype != type || tensor.shape != shape) fail(tensor, fmt::format("{} [{}]", name_of(type), fmt::join(shape, ", ")));
}

namespace {

// "model.layers.3.mlp.up_proj" → "re:^model\.layers\.\d+\.mlp\.up_proj$"
std::string pattern_of(const std::string& module) {
  std::string pattern = "re:^";
  for (size_t i = 0; i < module.size();) {
    if (std::isdigit(static_cast<unsigned char>(module[i])) && (i == 0 || module[i - 1] == '.')) {
      size_t end = i;
      while (end < module.size() && std::isdigit(static_cast<unsigned char>(module[end]))) ++end;
      if (end == module.size() || module[end] == '.') {
        pattern += "\\d+";
        i = end;
        continue;
      }
    }
    if (module[i] == '.') pattern += '\\';
    pattern += module[i++];
  }
  return pattern + "$";
}

}  // namespace

std::vector<std::string> module_patterns(const std::vector<std::string>& modules, const std::vector<std::string>& others) {
  std::set<std::string> taken;
  for (const std::string& other : others) taken.insert(pattern_of(other));
  std::map<std::string, std::vector<std::string>> by_pattern;
  std::vector<std::string> order;
  for (const std::string& module : modules) {
    auto& list = by_pattern[pattern_of(module)];
    if (list.empty()) order.push_back(pattern_of(module));
    list.push_back(module);
  }
  std::vector<std::string> all;
  for (const std::string& pattern : order) {
    const auto& list = by_pattern.at(pattern);
    if (list.size() > 1 && !taken.contains(pattern))
      all.push_back(pattern);
    else
      all.insert(all.end(), list.begin(), list.end());
  }
  return all;
}

void require_known_keys(const nlohmann::json& object, const std::string& place, std::initializer_list<std::string_view> known) {
  for (const auto& [key, value] : object.items())
    if (!value.is_null() && std::find(known.begin(), known.end(), key) == known.end())
      throw InputError(fmt::format("{}.{} is {}, expected no such key: what it says about the codes is not known", place, key, shown(value)));
}

void require_value(const nlohmann::json& object, const std::string& place, const char* key, const std::vector<nlohmann::json>& allowed) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null() || std::find(allowed.begin(), allowed.end(), *found) != allowed.end()) return;
  std::string expected = "no such key";
  for (const auto& value : allowed) expected += " or " + value.dump();
  throw InputError(fmt::format("{}.{} is {}, expected {}", place, key, shown(*found), expected));
}

bool named_by(const std::vector<std::string>& patterns, const std::string& module) {
  for (const std::string& pattern : patterns) {
    if (pattern == module || pattern == "Linear") return true;
    // As Python's re.match: from the start.
    if (pattern.starts_with("re:"))
      try {
        if (std::regex_search(module, std::regex(pattern.substr(3)), std::regex_constants::match_continuous)) return true;
      } catch (const std::regex_error&) {
        continue;
      }
  }
  return false;
}

}  // namespace qb
