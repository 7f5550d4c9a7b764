#pragma once
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace qb {

// A key that stands in a configuration and that nothing has read.
struct UnreadKey {
  std::string key;      // last part of its path, as the configuration's reader knows it
  std::string spelled;  // whole path, as the file spells it
  nlohmann::json value;
};

// Typed, range-checked reading of a model's configuration. Every complaint names the file, the key, what was found and
// what was expected. A null counts as an absent key, a boolean's as false, as in transformers.
// What is read is remembered (children and copies share the memory), so that known_keys.h can refuse what is not.
class ConfigFields {
 public:
  // origin: the file. spelled: key ("rope_scaling.factor" in a child) → how the file spells it (GGUF keys), for messages.
  ConfigFields(nlohmann::json object, std::string origin, std::map<std::string, std::string> spelled = {});

  bool has(const std::string& key) const;
  ConfigFields child(const std::string& key) const;  // of an object
  const nlohmann::json& json() const { return object_; }
  const std::string& origin() const { return origin_; }
  std::string spell(const std::string& key) const;
  void set_default(const std::string& key, nlohmann::json value);
  void replace(const std::string& key, nlohmann::json value);  // by what stands elsewhere and decides

  // Says that these keys mean nothing here, with all that is below them: another key switches them off, or what they say
  // is taken from elsewhere. They count as read.
  void without_effect(const std::vector<std::string>& keys) const;
  bool asked(const std::string& key) const { return memory_->asked.contains(path_ + key); }  // whether present or not
  std::vector<UnreadKey> unread() const;  // of this object and its children that were opened; null values left out

  // Positive unless `low` says otherwise. The first of `keys` that is present counts; the others count as read where they
  // say the same.
  int64_t integer(const std::vector<std::string>& keys, std::optional<int64_t> fallback = {}, int64_t low = 1,
                  int64_t high = int64_t{1} << 31) const;
  double real(const std::vector<std::string>& keys, std::optional<double> fallback = {}, double low = 0, double high = 1e30) const;
  bool boolean(const std::string& key, std::optional<bool> fallback = {}) const;
  std::string text(const std::vector<std::string>& keys, std::optional<std::string> fallback = {}) const;
  std::vector<double> reals(const std::string& key, std::optional<double> low = {}) const;  // finite and positive, or from low on
  std::vector<std::string> texts(const std::string& key) const;
  std::vector<int64_t> integers(const std::string& key) const;       // empty when absent

  [[noreturn]] void fail(const std::string& key, const std::string& expected) const;

 private:
  struct Memory {
    std::set<std::string> asked, read, ignored;  // whole paths, unspelled
  };
  const nlohmann::json* find(const std::vector<std::string>& keys, std::string& used) const;
  const nlohmann::json* find(const std::string& key) const;  // nullptr when absent
  nlohmann::json object_;
  std::string origin_, path_;
  std::map<std::string, std::string> spelled_;
  std::shared_ptr<Memory> memory_ = std::make_shared<Memory>();
};

}  // namespace qb
