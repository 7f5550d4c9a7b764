#pragma once
#include <cstdint>
#include <vector>

namespace qb {

// Pairs of neighbouring tokens that merge: (left, right) → rank (lower goes first) and the merged token.
// Open addressing in one array; at most half full.
class MergeTable {
 public:
  static constexpr uint32_t no_rank = UINT32_MAX;
  struct Merge {
    uint32_t rank = no_rank;
    int32_t id = -1;
  };

  explicit MergeTable(size_t expected = 0) { rehash(expected); }

  // The last rank given to a pair holds.
  void set(int32_t left, int32_t right, Merge merge);

  Merge find(int32_t left, int32_t right) const {
    const uint64_t key = key_of(left, right);
    for (size_t i = slot(key);; i = (i + 1) & mask_) {
      const Entry& e = entries_[i];
      if (e.key == key) return e.merge;
      if (e.key == vacant) return {};
    }
  }
  size_t size() const { return size_; }

  template <class F>
  void each(F&& visit) const {
    for (const Entry& e : entries_)
      if (e.key != vacant) visit(static_cast<int32_t>(e.key >> 32), static_cast<int32_t>(e.key & 0xFFFFFFFFu), e.merge);
  }

 private:
  struct Entry {
    uint64_t key;
    Merge merge;
  };
  static constexpr uint64_t vacant = UINT64_MAX;  // would be (-1, -1)
  static uint64_t key_of(int32_t left, int32_t right) { return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right); }
  size_t slot(uint64_t key) const { return static_cast<size_t>((key ^ key >> 29) * 0x9E3779B97F4A7C15ull >> shift_); }
  void rehash(size_t expected);

  std::vector<Entry> entries_;
  size_t mask_ = 0, size_ = 0;
  int shift_ = 0;
};

}  // namespace qb
