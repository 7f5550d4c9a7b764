#pragma once
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/format/gguf.h"
#include "core/model/config_fields.h"

namespace qb {

// Makes a config.json of a GGUF file's metadata, key by key: every key of its architecture that no one takes is left for the
// reader of the configuration to refuse.
class GgufTranslator {
 public:
  GgufTranslator(const GgufFile& file, std::string origin, std::string arch) : file_(file), origin_(std::move(origin)), arch_(std::move(arch)) {}

  // Copies "<arch>.<key>" under config.json's name ("rope_scaling.factor" in an object) when the file has it.
  void integer(const std::string& key, const std::string& name) {
    spell(key, name);
    if (const auto* list = per_layer(key)) {
      for (int64_t value : *list)
        if (value != list->front()) throw InputError(fmt::format("{}: key \"{}\" differs between blocks, which is not supported", origin_, full(key)));
      place(name) = list->empty() ? 0 : list->front();
      return;
    }
    if (auto value = file_.integer(full(key))) place(name) = *value;
  }
  void real(const std::string& key, const std::string& name) {
    spell(key, name);
    if (auto value = file_.real(full(key))) place(name) = *value;
  }
  void boolean(const std::string& key, const std::string& name) {
    spell(key, name);
    if (auto value = file_.boolean(full(key))) place(name) = *value;
  }
  void text(const std::string& key, const std::string& name) {
    spell(key, name);
    if (auto value = file_.text(full(key))) place(name) = *value;
  }
  // A key that this program cannot vary: it must say what is computed. expected 0: other keys do not say what that is.
  void must_be(const std::string& key, int64_t expected) {
    taken_.insert(key);
    if (auto value = file_.integer(full(key)); value && expected > 0 && *value != expected)
      throw InputError(fmt::format("{}: key \"{}\" is {}, expected {}", origin_, full(key), *value, expected));
  }
  // An array of one value a block; empty where there is none. It counts as taken.
  std::vector<int64_t> integers_of(const std::string& key) {
    taken_.insert(key);
    const auto* list = per_layer(key);
    return list ? *list : std::vector<int64_t>();
  }
  std::vector<double> reals_of(const std::string& key) {
    taken_.insert(key);
    const auto it = file_.metadata().find(full(key));
    const auto* list = it == file_.metadata().end() ? nullptr : std::get_if<std::vector<double>>(&it->second.value);
    return list ? *list : std::vector<double>();
  }
  void must_be_real(const std::string& key, double expected) {
    taken_.insert(key);
    if (auto value = file_.real(full(key)); value && std::abs(*value - expected) > 1e-6 * expected)
      throw InputError(fmt::format("{}: key \"{}\" is {}, expected {}", origin_, full(key), *value, expected));
  }
  // sliding_window, and layer_types from a list of booleans; without such a list each n-th block sees everything.
  void window_pattern(int64_t n) {
    integer("attention.sliding_window", "sliding_window");
    std::vector<std::string> types;
    for (int64_t i = 1; i <= std::clamp<int64_t>(integer_of("block_count").value_or(0), 0, 1 << 16); ++i) types.push_back(i % n == 0 ? "full_attention" : "sliding_attention");
    spell("attention.sliding_window_pattern", "layer_types");
    if (const auto it = file_.metadata().find(full("attention.sliding_window_pattern")); it != file_.metadata().end()) {
      const auto* slides = std::get_if<std::vector<bool>>(&it->second.value);
      if (!slides || slides->size() != types.size())
        throw InputError(fmt::format("{}: key \"{}\" is no list of {} booleans, one for each block", origin_, full("attention.sliding_window_pattern"), types.size()));
      for (size_t i = 0; i < types.size(); ++i) types[i] = (*slides)[i] ? "sliding_attention" : "full_attention";
    }
    set("layer_types", types);
  }
  // What the file says otherwise than by a key.
  template <typename T>
  void set(const std::string& name, T value) {
    place(name) = std::move(value);
    if (!spelled_.contains(name)) derived_.push_back(name);
  }
  void forget(const std::string& name) { config_.erase(name); }
  bool has(const std::string& name) const { return config_.contains(name); }
  std::optional<int64_t> integer_of(const std::string& key) const { return file_.integer(full(key)); }
  std::optional<double> real_of(const std::string& key) const { return file_.real(full(key)); }
  std::optional<std::string> text_of(const std::string& key) const { return file_.text(full(key)); }
  std::string full(const std::string& key) const { return arch_ + "." + key; }
  const std::string& origin() const { return origin_; }
  const std::string& arch() const { return arch_; }
  const GgufFile& file() const { return file_; }
  bool has_tensor(const std::string& name) const { return file_.contains(name); }
  // 0 where the key is missing or absurd, which is for the family to say.
  int64_t hidden() const { return std::max<int64_t>(0, integer_of("embedding_length").value_or(0)); }
  int64_t heads() const { return std::max<int64_t>(0, integer_of("attention.head_count").value_or(0)); }
  // Whether the blocks' linears have biases.
  bool qkv_bias() const { return has_tensor("blk.0.attn_q.bias") || has_tensor("blk.0.attn_qkv.bias"); }
  bool o_bias() const { return has_tensor("blk.0.attn_output.bias"); }
  bool mlp_bias() const { return has_tensor("blk.0.ffn_up.bias"); }

  // With every key of the architecture that was not translated under its own name, to be refused unless it is harmless.
  ConfigFields done() && {
    for (const auto& [name, value] : file_.metadata()) {
      if (name.rfind(arch_ + ".", 0) != 0) continue;
      const std::string key = name.substr(arch_.size() + 1);
      if (taken_.contains(key)) continue;
      config_[key] = std::visit([](const auto& v) { return nlohmann::json(v); }, value.value);
      spelled_[key] = name;
    }
    ConfigFields fields(std::move(config_), origin_, std::move(spelled_));
    fields.without_effect(derived_);
    return fields;
  }

 private:
  const std::vector<int64_t>* per_layer(const std::string& key) const {
    auto it = file_.metadata().find(full(key));
    return it == file_.metadata().end() ? nullptr : std::get_if<std::vector<int64_t>>(&it->second.value);
  }
  void spell(const std::string& key, const std::string& name) {
    taken_.insert(key);
    spelled_[name] = full(key);
  }
  nlohmann::json& place(const std::string& name) {
    const size_t dot = name.find('.');
    return dot == std::string::npos ? config_[name] : config_[name.substr(0, dot)][name.substr(dot + 1)];
  }

  const GgufFile& file_;
  std::string origin_, arch_;
  nlohmann::json config_ = nlohmann::json::object();
  std::map<std::string, std::string> spelled_;  // config.json's name → the file's
  std::set<std::string> taken_;                 // keys without the architecture
  std::vector<std::string> derived_;
};
}  // namespace qb
