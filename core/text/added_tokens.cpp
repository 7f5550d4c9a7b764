#include "core/text/added_tokens.h"

#include <algorithm>

#include "core/text/unicode.h"
#include "core/text/utf8.h"

namespace qb {

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, const std::vector<std::unique_ptr<Normalizer>>& normalizers)
    : tokens_(std::move(tokens)) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& t = tokens_[i];
    std::string spelling = t.content;
    if (t.normalized)
      for (const auto& n : normalizers) n->apply(spelling);
    (t.normalized ? normalized_ : raw_).add(spelling, static_cast<int32_t>(i));
    by_id_[t.id] = i;
    spellings_.push_back(std::move(spelling));
  }
}

std::vector<AddedTokens::Found> AddedTokens::find(std::string_view text, Stage stage) const {
  const ByteTrie& keys = trie(stage);
  std::vector<Found> out;
  size_t done = 0;
  auto is_word = [&](const char* p) { return unicode::is_rust_word(utf8::decode(p).code_point); };
  for (size_t at = 0; at < text.size();) {
    if (!keys.starts(static_cast<unsigned char>(text[at]))) {
      ++at;
      continue;
    }
    size_t length = 0;
    int32_t index = -1;
    keys.each_prefix(text.substr(at), [&](size_t n, int32_t value) {
      length = n;
      index = value;
    });
    if (index < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(index)];
    size_t begin = at, end = at + length;
    at = end;
    if (token.single_word) {
      const bool left = begin > 0 && is_word(utf8::previous(text.data() + begin));
      const bool right = end < text.size() && is_word(text.data() + end);
      if (left || right) continue;
    }
    if (token.lstrip) {
      while (begin > done) {
        const char* p = utf8::previous(text.data() + begin);
        if (!unicode::is_space(utf8::decode(p).code_point)) break;
        begin = static_cast<size_t>(p - text.data());
      }
      begin = std::max(begin, done);
    }
    if (token.rstrip) {
      while (end < text.size()) {
        const auto [c, n] = utf8::decode(text.data() + end);
        if (!unicode::is_space(c)) break;
        end += static_cast<size_t>(n);
      }
    }
    if (done < begin) out.push_back({done, begin, std::nullopt});
    out.push_back({begin, end, token.id});
    done = end;
  }
  if (done < text.size()) out.push_back({done, text.size(), std::nullopt});
  return out;
}

const AddedToken* AddedTokens::by_id(int32_t id) const {
  auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : &tokens_[it->second];
}

const AddedToken* AddedTokens::by_content(std::string_view content) const {
  auto it = std::find_if(tokens_.begin(), tokens_.end(), [&](const AddedToken& t) { return t.content == content; });
  return it == tokens_.end() ? nullptr : &*it;
}

const std::string& AddedTokens::spelling(const AddedToken& token) const { return spellings_[static_cast<size_t>(&token - tokens_.data())]; }

bool AddedTokens::is_special(std::string_view spelling) const {
  return std::any_of(tokens_.begin(), tokens_.end(), [&](const AddedToken& t) { return t.special && t.content == spelling; });
}

}  // namespace qb
