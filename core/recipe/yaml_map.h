#pragma once
#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/base/error.h"

namespace qb {

// A YAML mapping read key by key. Every error is a RecipeError with the dotted key; unknown keys are errors that name the
// nearest known one. Positions are added by whoever holds the text.
class YamlMap {
 public:
  YamlMap(const YAML::Node& node, std::string place);  // error when node is no mapping or repeats a key

  bool has(const std::string& key) const;              // present and not null
  std::string place(const std::string& key) const;     // dotted
  YAML::Node node(const std::string& key);             // marks the key as known; undefined when absent
  std::optional<std::string> text(const std::string& key);
  std::optional<bool> boolean(const std::string& key);
  std::optional<int64_t> integer(const std::string& key, int64_t low, int64_t high);
  std::optional<uint64_t> unsigned_integer(const std::string& key);
  std::optional<double> real(const std::string& key, double low, double high);
  std::optional<YamlMap> map(const std::string& key);
  std::vector<YAML::Node> list(const std::string& key);  // error when present and no list
  std::vector<std::string> keys() const;
  std::vector<std::string> unread() const;  // keys that nobody asked for yet
  // The keys that nobody asked for, each as an error; finish() throws the first.
  std::vector<RecipeError> unknown() const;
  void finish() const;
  [[noreturn]] void fail(const std::string& key, const std::string& what) const;

 private:
  std::optional<std::string> scalar(const std::string& key, const char* expected);
  YAML::Node node_;
  std::string place_;
  std::set<std::string> known_;
};

[[noreturn]] void fail_at(const std::string& key, const std::string& what);

}  // namespace qb
