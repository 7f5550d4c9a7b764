#include "core/text/json_field.h"

#include <fmt/format.h>

#include "core/base/error.h"

namespace qb {

nlohmann::json JsonField::parse(std::string_view text, const std::string& origin) {
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::parse_error& e) {
    throw InputError(fmt::format("{}: not valid JSON at byte {}: {}", origin, e.byte, e.what()));
  }
}

void JsonField::fail(const std::string& message) const { throw InputError(where() + ": " + message); }

void JsonField::fail_type(const char* expected) const { fail(fmt::format("expected {}, found {}", expected, value_->type_name())); }

bool JsonField::has(const char* key) const {
  if (!value_->is_object()) return false;
  auto it = value_->find(key);
  return it != value_->end() && !it->is_null();
}

JsonField JsonField::at(const std::string& key) const {
  if (!value_->is_object()) fail_type("an object");
  auto it = value_->find(key);
  if (it == value_->end()) fail(fmt::format("the field '{}' is missing", key));
  return {*it, origin_, path_.empty() ? key : path_ + "." + key};
}

JsonField JsonField::at(size_t index) const {
  if (path_.size() > 2000) fail("nested too deeply");  // what reads it recurses
  return {(*value_)[index], origin_, fmt::format("{}[{}]", path_, index)};
}

JsonField JsonField::object() const {
  if (!value_->is_object()) fail_type("an object");
  return *this;
}

JsonField JsonField::array() const {
  if (!value_->is_array()) fail_type("an array");
  return *this;
}

std::string JsonField::text() const {
  if (!value_->is_string()) fail_type("a string");
  return value_->get<std::string>();
}

bool JsonField::boolean() const {
  if (!value_->is_boolean()) fail_type("true or false");
  return value_->get<bool>();
}

int64_t JsonField::integer(int64_t lowest, int64_t highest) const {
  if (!value_->is_number_integer()) fail_type("an integer");
  const bool huge = value_->is_number_unsigned() && value_->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  const int64_t found = huge ? INT64_MAX : value_->get<int64_t>();
  if (found < lowest || found > highest) fail(fmt::format("expected an integer from {} to {}, found {}", lowest, highest, value_->dump()));
  return found;
}

double JsonField::number() const {
  if (!value_->is_number()) fail_type("a number");
  return value_->get<double>();
}

std::string JsonField::text_or(const char* key, const std::string& otherwise) const { return has(key) ? at(key).text() : otherwise; }

bool JsonField::boolean_or(const char* key, bool otherwise) const { return has(key) ? at(key).boolean() : otherwise; }

std::optional<std::string> JsonField::optional_text(const char* key) const {
  if (!has(key)) return std::nullopt;
  return at(key).text();
}

}  // namespace qb
