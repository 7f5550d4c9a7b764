#pragma once
#include <cstdint>
#include <utility>
#include <vector>

namespace qb {

// SplitMix64 (Steele, Lea, Flood 2014): the same numbers from the same seed on every platform.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15ull);
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ z >> 27) * 0x94D049BB133111EBull;
    return z ^ z >> 31;
  }

  // Uniform in [0, bound), bound > 0; without bias, by rejection.
  uint64_t below(uint64_t bound) {
    const uint64_t excess = (UINT64_MAX % bound + 1) % bound;  // 2^64 mod bound
    uint64_t value = next();
    while (value > UINT64_MAX - excess) value = next();
    return value % bound;
  }

  // Fisher–Yates, from the end.
  template <class T>
  void shuffle(std::vector<T>& items) {
    for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[below(i)]);
  }

 private:
  uint64_t state_;
};

}  // namespace qb
