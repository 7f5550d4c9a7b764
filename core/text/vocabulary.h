#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace qb {

// Token spellings and their ids. Ids need not be dense: holes have no spelling.
class Vocabulary {
 public:
  // Far above any model's vocabulary; an id beyond it is a mistake.
  static constexpr int64_t highest_id = (int64_t{1} << 24) - 1;

  // Throws InputError naming `origin`, the token and the id when the id is taken or out of range. A spelling that is
  // already there gets the later id for look-ups (as in tokenizers), where `allow_repeats` says so.
  void add(std::string token, int64_t id, const std::string& origin, bool allow_repeats = false);

  std::optional<int32_t> find(std::string_view token) const {
    auto it = ids_.find(token);
    if (it == ids_.end()) return std::nullopt;
    return it->second;
  }
  bool has(int32_t id) const { return id >= 0 && static_cast<size_t>(id) < tokens_.size() && present_[static_cast<size_t>(id)]; }
  // Empty for an id without a token.
  const std::string& token(int32_t id) const;
  int64_t count() const { return count_; }                                        // tokens
  int32_t end() const { return static_cast<int32_t>(tokens_.size()); }            // highest id + 1

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
  };
  std::vector<std::string> tokens_;
  std::vector<bool> present_;
  std::unordered_map<std::string, int32_t, Hash, std::equal_to<>> ids_;
  int64_t count_ = 0;
};

}  // namespace qb
