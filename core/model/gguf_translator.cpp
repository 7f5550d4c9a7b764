#include "core/model/gguf_translator.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/base/error.h"

namespace qb {

void GgufTranslator::integer(const std::string& key, const std::string& name) {
  spell(key, name);
  if (const auto* list = per_layer(key)) {
    for (int64_t value : *list)
      if (value != list->front()) throw InputError(fmt::format("{}: key \"{}\" differs between blocks, which is not supported", origin_, full(key)));
    place(name) = list->empty() ? 0 : list->front();
    return;
  }
  if (auto value = file_.integer(full(key))) place(name) = *value;
}

void GgufTranslator::real(const std::string& key, const std::string& name) {
  spell(key, name);
  if (auto value = file_.real(full(key))) place(name) = *value;
}

void GgufTranslator::boolean(const std::string& key, const std::string& name) {
  spell(key, name);
  if (auto value = file_.boolean(full(key))) place(name) = *value;
}

void GgufTranslator::text(const std::string& key, const std::string& name) {
  spell(key, name);
  if (auto value = file_.text(full(key))) place(name) = *value;
}

void GgufTranslator::must_be(const std::string& key, int64_t expected) {
  taken_.insert(key);
  if (auto value = file_.integer(full(key)); value && expected > 0 && *value != expected)
    throw InputError(fmt::format("{}: key \"{}\" is {}, expected {}", origin_, full(key), *value, expected));
}

void GgufTranslator::must_be_real(const std::string& key, double expected) {
  taken_.insert(key);
  if (auto value = file_.real(full(key)); value && std::abs(*value - expected) > 1e-6 * expected)
    throw InputError(fmt::format("{}: key \"{}\" is {}, expected {}", origin_, full(key), *value, expected));
}

std::vector<double> GgufTranslator::reals_of(const std::string& key) {
  taken_.insert(key);
  const auto it = file_.metadata().find(full(key));
  const auto* list = it == file_.metadata().end() ? nullptr : std::get_if<std::vector<double>>(&it->second.value);
  return list ? *list : std::vector<double>();
}

std::vector<int64_t> GgufTranslator::integers_of(const std::string& key) {
  taken_.insert(key);
  const auto* list = per_layer(key);
  return list ? *list : std::vector<int64_t>();
}

void GgufTranslator::window_pattern(int64_t n) {
  const int64_t blocks = counted_blocks();
  integer("attention.sliding_window", "sliding_window");
  const std::string key = "attention.sliding_window_pattern";
  std::vector<bool> slides;
  spell(key, "layer_types");
  if (const auto it = file_.metadata().find(full(key)); it != file_.metadata().end()) {
    const auto* period = std::get_if<int64_t>(&it->second.value);
    if (const auto* list = std::get_if<std::vector<bool>>(&it->second.value)) slides = *list;
    if (period ? *period < 0 : static_cast<int64_t>(slides.size()) != blocks)
      throw InputError(fmt::format("{}: key \"{}\" is neither a period nor a list of {} booleans, one for each block", origin_, full(key), blocks));
    if (period) n = *period;
  }
  for (int64_t i = static_cast<int64_t>(slides.size()) + 1; i <= blocks; ++i) slides.push_back(n == 0 || i % n != 0);
  std::vector<std::string> types;
  for (bool slide : slides) types.emplace_back(slide ? "sliding_attention" : "full_attention");
  set("layer_types", types);
}

void GgufTranslator::see_everything() {
  taken_.insert({"attention.sliding_window", "attention.sliding_window_pattern"});
  set("sliding_window", nullptr);
  set("layer_types", std::vector<std::string>(static_cast<size_t>(counted_blocks()), "full_attention"));
}

ConfigFields GgufTranslator::done() && {
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

int64_t GgufTranslator::counted_blocks() const { return std::clamp<int64_t>(integer_of("block_count").value_or(0), 0, 1 << 16); }

const std::vector<int64_t>* GgufTranslator::per_layer(const std::string& key) const {
  auto it = file_.metadata().find(full(key));
  return it == file_.metadata().end() ? nullptr : std::get_if<std::vector<int64_t>>(&it->second.value);
}

void GgufTranslator::spell(const std::string& key, const std::string& name) {
  taken_.insert(key);
  spelled_[name] = full(key);
}

nlohmann::json& GgufTranslator::place(const std::string& name) {
  const size_t dot = name.find('.');
  return dot == std::string::npos ? config_[name] : config_[name.substr(0, dot)][name.substr(dot + 1)];
}

}  // namespace qb
