#pragma once
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/format/gguf.h"
#include "core/model/config_fields.h"

namespace qb {

// Makes a config.json of a GGUF file's metadata, key by key: every key of its architecture that no one takes is left for the
// reader of the configuration to refuse.
class GgufTranslator {
 public:
  GgufTranslator(const GgufFile& file, std::string origin, std::string arch) : file_(file), origin_(std::move(origin)), arch_(std::move(arch)) {}

  // Copies "<arch>.<key>" under config.json's name ("rope_scaling.factor" in an object) when the file has it.
  void integer(const std::string& key, const std::string& name);  // an array of one value a block is taken where all are the same
  void real(const std::string& key, const std::string& name);
  void boolean(const std::string& key, const std::string& name);
  void text(const std::string& key, const std::string& name);
  // A key that this program cannot vary: it must say what is computed. expected 0: other keys do not say what that is.
  void must_be(const std::string& key, int64_t expected);
  void must_be_real(const std::string& key, double expected);
  // An array of one value a block; empty where there is none. It counts as taken.
  std::vector<int64_t> integers_of(const std::string& key);
  std::vector<double> reals_of(const std::string& key);
  // sliding_window, and layer_types from a list of booleans or a period: each such block sees everything, none where it is 0.
  // n: the period where the file has neither.
  void window_pattern(int64_t n);
  // No windows in any block, whatever pattern stands beside.
  void see_everything();
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
  ConfigFields done() &&;

 private:
  int64_t counted_blocks() const;
  const std::vector<int64_t>* per_layer(const std::string& key) const;
  void spell(const std::string& key, const std::string& name);
  nlohmann::json& place(const std::string& name);

  const GgufFile& file_;
  std::string origin_, arch_;
  nlohmann::json config_ = nlohmann::json::object();
  std::map<std::string, std::string> spelled_;  // config.json's name → the file's
  std::set<std::string> taken_;                 // keys without the architecture
  std::vector<std::string> derived_;
};

}  // namespace qb
