#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qb {

// A value inside a JSON document that knows where it stands, so that every complaint names file and field:
// "tokenizer.json: model.merges[3]: expected a string, found a number".
class JsonField {
 public:
  // Parses a whole document. Throws InputError naming the origin and the byte where the text stops being JSON.
  static nlohmann::json parse(std::string_view text, const std::string& origin);

  JsonField(const nlohmann::json& value, std::string origin, std::string path = "")
      : value_(&value), origin_(std::move(origin)), path_(std::move(path)) {}

  const nlohmann::json& value() const { return *value_; }
  const std::string& origin() const { return origin_; }
  std::string where() const { return path_.empty() ? origin_ : origin_ + ": " + path_; }
  [[noreturn]] void fail(const std::string& message) const;
  [[noreturn]] void fail_type(const char* expected) const;

  bool has(const char* key) const;               // present and not null
  JsonField at(const std::string& key) const;    // InputError when absent
  JsonField at(size_t index) const;              // of an array, index checked by the caller
  size_t size() const { return value_->size(); }
  JsonField object() const;                      // itself; InputError for another type
  JsonField array() const;

  std::string text() const;
  bool boolean() const;
  int64_t integer(int64_t lowest, int64_t highest) const;
  double number() const;

  std::string text_or(const char* key, const std::string& otherwise) const;
  bool boolean_or(const char* key, bool otherwise) const;
  std::optional<std::string> optional_text(const char* key) const;

 private:
  const nlohmann::json* value_;
  std::string origin_, path_;
};

}  // namespace qb
