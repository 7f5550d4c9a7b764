#include "core/text/word_cache.h"

#include <algorithm>

namespace qb {

uint64_t WordCache::hash_of(std::string_view word) {
  uint64_t h = 0x9E3779B97F4A7C15ull ^ word.size();
  const char* p = word.data();
  size_t left = word.size();
  for (; left >= 8; left -= 8, p += 8) {
    uint64_t v;
    std::memcpy(&v, p, 8);
    h = (h ^ v) * 0xD6E8FEB86659FD93ull;
    h ^= h >> 32;
  }
  uint64_t v = 0;
  std::memcpy(&v, p, left);
  h = (h ^ v) * 0xD6E8FEB86659FD93ull;
  return (h ^ h >> 32) | 1;  // never the 0 of an empty slot
}

bool WordCache::find_large(std::string_view word, std::vector<int32_t>& ids) const {
  if (words_.empty() || word.size() > longest) return false;
  const uint64_t hash = hash_of(word);
  const Large& e = large_[hash >> (64 - large_bits)];
  if (e.hash != hash || std::string_view(words_).substr(e.word, e.word_size) != word) return false;
  ids.insert(ids.end(), tokens_.begin() + e.ids, tokens_.begin() + e.ids + e.ids_size);
  return true;
}

void WordCache::put(std::string_view word, std::span<const int32_t> ids) {
  if (word.empty() || word.size() > longest) return;
  if (word.size() <= 15 && ids.size() <= 3) {
    const Key key = key_of(word);
    Small& e = small_[small_slot(key)];
    e.key = key;
    e.count = static_cast<int32_t>(ids.size());
    std::copy(ids.begin(), ids.end(), e.ids);
    return;
  }
  if (words_.size() + word.size() > store_limit || tokens_.size() + ids.size() > store_limit) {
    std::fill(large_.begin(), large_.end(), Large{});
    words_.clear();
    tokens_.clear();
  }
  const uint64_t hash = hash_of(word);
  large_[hash >> (64 - large_bits)] = {hash, static_cast<uint32_t>(words_.size()), static_cast<uint32_t>(word.size()),
                                       static_cast<uint32_t>(tokens_.size()), static_cast<uint32_t>(ids.size())};
  words_ += word;
  tokens_.insert(tokens_.end(), ids.begin(), ids.end());
}

}  // namespace qb
