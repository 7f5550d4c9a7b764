#pragma once
#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qb {

// Remembers the tokens of words already seen. Words of up to 15 bytes and 3 tokens sit whole in one half cache line;
// longer ones behind an index into a store that starts over when it is full. A newcomer takes the place of what its
// hash collides with, so the size is fixed.
class WordCache {
 public:
  WordCache() : small_(size_t{1} << small_bits), large_(size_t{1} << large_bits) {}

  // Appends the tokens and returns true when the word is known.
  bool find(std::string_view word, std::vector<int32_t>& ids) const {
    if (word.size() <= 15) {
      const Key key = key_of(word);
      const Small& e = small_[small_slot(key)];
      if (e.key.low == key.low && e.key.high == key.high) {
        ids.insert(ids.end(), e.ids, e.ids + e.count);
        return true;
      }
    }
    return find_large(word, ids);
  }
  void put(std::string_view word, std::span<const int32_t> ids);

 private:
  static constexpr int small_bits = 15, large_bits = 13;
  static constexpr size_t longest = 256, store_limit = size_t{1} << 20;
  struct Key {
    uint64_t low = 0, high = 0;  // the bytes, the length in the topmost
  };
  struct Small {
    Key key;
    int32_t count = 0;
    int32_t ids[3] = {};
  };
  struct Large {
    uint64_t hash = 0;
    uint32_t word = 0, word_size = 0, ids = 0, ids_size = 0;
  };
  static Key key_of(std::string_view word) {
    char bytes[16] = {};
    std::memcpy(bytes, word.data(), word.size());
    bytes[15] = static_cast<char>(word.size());
    Key key;
    std::memcpy(&key.low, bytes, 8);
    std::memcpy(&key.high, bytes + 8, 8);
    return key;
  }
  static size_t small_slot(Key k) {
    uint64_t h = (k.low ^ (k.high * 0xC2B2AE3D27D4EB4Full)) * 0x9E3779B97F4A7C15ull;
    h ^= h >> 32;
    return static_cast<size_t>(h * 0xD6E8FEB86659FD93ull >> (64 - small_bits));
  }
  static uint64_t hash_of(std::string_view word);
  bool find_large(std::string_view word, std::vector<int32_t>& ids) const;

  std::vector<Small> small_;
  std::vector<Large> large_;
  std::string words_;
  std::vector<int32_t> tokens_;
};

}  // namespace qb
