#include "core/model/config_fields.h"

#include <fmt/format.h>

#include <cmath>

#include "core/base/error.h"
#include "core/model/shown_value.h"

namespace qb {

ConfigFields::ConfigFields(nlohmann::json object, std::string origin, std::map<std::string, std::string> spelled)
    : object_(std::move(object)), origin_(std::move(origin)), spelled_(std::move(spelled)) {
  if (!object_.is_object()) throw InputError(fmt::format("{}: expected a JSON object, found {}", origin_, shown(object_)));
}

bool ConfigFields::has(const std::string& key) const {
  auto it = object_.find(key);
  return it != object_.end() && !it->is_null();
}

std::string ConfigFields::spell(const std::string& key) const {
  auto it = spelled_.find(path_ + key);
  return it == spelled_.end() ? path_ + key : it->second;
}

void ConfigFields::fail(const std::string& key, const std::string& expected) const {
  if (!has(key)) throw InputError(fmt::format("{}: key \"{}\" is missing, expected {}", origin_, spell(key), expected));
  throw InputError(fmt::format("{}: key \"{}\" is {}, expected {}", origin_, spell(key), shown(object_.at(key)), expected));
}

void ConfigFields::set_default(const std::string& key, nlohmann::json value) {
  if (!has(key)) replace(key, std::move(value));
}

void ConfigFields::replace(const std::string& key, nlohmann::json value) {
  object_[key] = std::move(value);
  memory_->ignored.insert(path_ + key);  // the file does not say it here
}

void ConfigFields::without_effect(const std::vector<std::string>& keys) const {
  for (const std::string& key : keys) memory_->ignored.insert(path_ + key);
}

std::vector<UnreadKey> ConfigFields::unread() const {
  std::vector<UnreadKey> keys;
  for (const auto& [key, value] : object_.items()) {
    if (value.is_null() || memory_->ignored.contains(path_ + key)) continue;
    if (!memory_->read.contains(path_ + key)) {
      keys.push_back({key, spell(key), value});
    } else if (value.is_object()) {
      const auto below = child(key).unread();
      keys.insert(keys.end(), below.begin(), below.end());
    }
  }
  return keys;
}

const nlohmann::json* ConfigFields::find(const std::vector<std::string>& keys, std::string& used) const {
  used = keys.front();
  const nlohmann::json* value = nullptr;
  for (const std::string& key : keys) {
    memory_->asked.insert(path_ + key);
    if (!has(key) || (value && object_.at(key) != *value)) continue;
    memory_->read.insert(path_ + key);
    if (!value) used = key, value = &object_.at(key);
  }
  return value;
}

const nlohmann::json* ConfigFields::find(const std::string& key) const {
  std::string used;
  return find({key}, used);
}

ConfigFields ConfigFields::child(const std::string& key) const {
  const nlohmann::json* value = find(key);
  if (!value || !value->is_object()) fail(key, "an object");
  ConfigFields fields(*value, origin_);
  fields.path_ = path_ + key + ".";
  fields.spelled_ = spelled_;
  fields.memory_ = memory_;
  return fields;
}

int64_t ConfigFields::integer(const std::vector<std::string>& keys, std::optional<int64_t> fallback, int64_t low, int64_t high) const {
  std::string key;
  const nlohmann::json* value = find(keys, key);
  if (!value && fallback) return *fallback;
  const std::string expected = fmt::format("an integer from {} to {}", low, high);
  if (!value) fail(key, expected);
  // Some configurations write whole numbers as 4096.0.
  const bool whole = value->is_number_float() && std::floor(value->get<double>()) == value->get<double>() &&
                     std::abs(value->get<double>()) < 9e15;
  if (!value->is_number_integer() && !whole) fail(key, expected);
  if (value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) fail(key, expected);
  const int64_t number = whole ? static_cast<int64_t>(value->get<double>()) : value->get<int64_t>();
  if (number < low || number > high) fail(key, expected);
  return number;
}

double ConfigFields::real(const std::vector<std::string>& keys, std::optional<double> fallback, double low, double high) const {
  std::string key;
  const nlohmann::json* value = find(keys, key);
  if (!value && fallback) return *fallback;
  const std::string expected = fmt::format("a number above {} and at most {}", low, high);
  if (!value || !value->is_number()) fail(key, expected);
  const double number = value->get<double>();
  if (!std::isfinite(number) || number <= low || number > high) fail(key, expected);
  return number;
}

bool ConfigFields::boolean(const std::string& key, std::optional<bool> fallback) const {
  const nlohmann::json* value = find(key);
  if (!value && fallback) return *fallback && !object_.contains(key);
  if (!value || !value->is_boolean()) fail(key, "true or false");
  return value->get<bool>();
}

std::string ConfigFields::text(const std::vector<std::string>& keys, std::optional<std::string> fallback) const {
  std::string key;
  const nlohmann::json* value = find(keys, key);
  if (!value && fallback) return *fallback;
  if (!value || !value->is_string()) fail(key, "a text");
  return value->get<std::string>();
}

std::vector<double> ConfigFields::reals(const std::string& key, std::optional<double> low) const {
  const std::string expected = low ? fmt::format("a list of numbers from {} on", *low) : "a list of positive numbers";
  const nlohmann::json* list = find(key);
  if (!list || !list->is_array()) fail(key, expected);
  std::vector<double> values;
  for (const auto& item : *list) {
    if (!item.is_number() || !std::isfinite(item.get<double>()) || (low ? item.get<double>() < *low : item.get<double>() <= 0)) fail(key, expected);
    values.push_back(item.get<double>());
  }
  return values;
}

std::vector<std::string> ConfigFields::texts(const std::string& key) const {
  std::vector<std::string> values;
  const nlohmann::json* list = find(key);
  if (!list) return values;
  if (!list->is_array()) fail(key, "a list of texts");
  for (const auto& item : *list) {
    if (!item.is_string()) fail(key, "a list of texts");
    values.push_back(item.get<std::string>());
  }
  return values;
}

std::vector<int64_t> ConfigFields::integers(const std::string& key) const {
  std::vector<int64_t> values;
  const nlohmann::json* list = find(key);
  if (!list) return values;
  if (!list->is_array()) fail(key, "a list of integers");
  for (const auto& item : *list) {
    if (!item.is_number_integer()) fail(key, "a list of integers");
    values.push_back(item.get<int64_t>());
  }
  return values;
}

}  // namespace qb
