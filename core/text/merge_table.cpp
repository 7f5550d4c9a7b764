#include "core/text/merge_table.h"

#include <utility>

namespace qb {

void MergeTable::set(int32_t left, int32_t right, Merge merge) {
  if ((size_ + 1) * 2 > entries_.size()) rehash(size_ * 2 + 2);
  const uint64_t key = key_of(left, right);
  size_t i = slot(key);
  while (entries_[i].key != key && entries_[i].key != vacant) i = (i + 1) & mask_;
  if (entries_[i].key == vacant) ++size_;
  entries_[i] = {key, merge};
}

void MergeTable::rehash(size_t expected) {
  int bits = 4;
  while ((size_t{1} << bits) < expected * 2) ++bits;
  std::vector<Entry> old(size_t{1} << bits, Entry{vacant, {}});
  std::swap(old, entries_);
  mask_ = entries_.size() - 1;
  shift_ = 64 - bits;
  for (const Entry& e : old) {
    if (e.key == vacant) continue;
    size_t i = slot(e.key);
    while (entries_[i].key != vacant) i = (i + 1) & mask_;
    entries_[i] = e;
  }
}

}  // namespace qb
