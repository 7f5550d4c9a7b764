#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/text/byte_trie.h"
#include "core/text/normalizer.h"

namespace qb {

// A token that is looked for in the text before the model sees it.
struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false;  // only between non-word characters
  bool lstrip = false;       // takes the spaces before it along
  bool rstrip = false;
  bool normalized = false;   // matches in the normalized text, in its own normalized form
  bool special = false;      // may be left out when decoding
};

// The added tokens of a tokenizer and the two searches for them.
class AddedTokens {
 public:
  AddedTokens() = default;
  AddedTokens(std::vector<AddedToken> tokens, const std::vector<std::unique_ptr<Normalizer>>& normalizers);

  enum class Stage { raw, normalized };
  struct Found {
    size_t begin, end;
    std::optional<int32_t> id;  // absent: text between tokens
  };
  bool any(Stage stage) const { return !trie(stage).empty(); }
  // Cuts the text into tokens and what lies between; leftmost, then longest match.
  std::vector<Found> find(std::string_view text, Stage stage) const;

  const AddedToken* by_id(int32_t id) const;
  const AddedToken* by_content(std::string_view content) const;
  const std::vector<AddedToken>& all() const { return tokens_; }
  // How decoding spells it: the normalized form of a normalized token, else its content.
  const std::string& spelling(const AddedToken& token) const;
  bool is_special(std::string_view spelling) const;

 private:
  const ByteTrie& trie(Stage stage) const { return stage == Stage::raw ? raw_ : normalized_; }
  std::vector<AddedToken> tokens_;
  std::vector<std::string> spellings_;
  std::unordered_map<int32_t, size_t> by_id_;
  ByteTrie raw_, normalized_;  // content → index into tokens_
};

}  // namespace qb
