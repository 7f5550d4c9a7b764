#pragma once
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace qb {

// Typed, range-checked reading of a model's configuration. Every complaint names the file, the key, what was found and
// what was expected. A key with a null value counts as absent, as in transformers.
class ConfigFields {
 public:
  // origin: the file. spelled: key → how the file spells it (GGUF keys), for messages.
  ConfigFields(nlohmann::json object, std::string origin, std::map<std::string, std::string> spelled = {});

  bool has(const std::string& key) const;
  ConfigFields child(const std::string& key) const;  // of an object
  const nlohmann::json& json() const { return object_; }
  const std::string& origin() const { return origin_; }
  std::string spell(const std::string& key) const;
  void set_default(const std::string& key, nlohmann::json value);

  // Positive unless `low` says otherwise. The first of `keys` that is present counts.
  int64_t integer(const std::vector<std::string>& keys, std::optional<int64_t> fallback = {}, int64_t low = 1,
                  int64_t high = int64_t{1} << 31) const;
  double real(const std::vector<std::string>& keys, std::optional<double> fallback = {}, double low = 0, double high = 1e30) const;
  bool boolean(const std::string& key, std::optional<bool> fallback = {}) const;
  std::string text(const std::vector<std::string>& keys, std::optional<std::string> fallback = {}) const;
  std::vector<double> reals(const std::string& key) const;           // finite and positive
  std::vector<std::string> texts(const std::string& key) const;
  std::vector<int64_t> integers(const std::string& key) const;       // empty when absent

  [[noreturn]] void fail(const std::string& key, const std::string& expected) const;

 private:
  const nlohmann::json* find(const std::vector<std::string>& keys, std::string& used) const;
  nlohmann::json object_;
  std::string origin_, path_;
  std::map<std::string, std::string> spelled_;
};

}  // namespace qb
