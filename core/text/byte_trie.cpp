#include "core/text/byte_trie.h"

namespace qb {

void ByteTrie::add(std::string_view key, int32_t value) {
  if (key.empty()) return;
  int32_t node = 0;
  for (char c : key) {
    const auto byte = static_cast<unsigned char>(c);
    int32_t next = child(node, byte);
    if (next < 0) {
      next = static_cast<int32_t>(nodes_.size());
      nodes_.push_back({});
      nodes_.back().byte = byte;
      if (node == 0) {
        root_.child[byte] = next;
      } else {
        int32_t* link = &nodes_[static_cast<size_t>(node)].first_child;
        while (*link >= 0 && nodes_[static_cast<size_t>(*link)].byte < byte) link = &nodes_[static_cast<size_t>(*link)].sibling;
        nodes_.back().sibling = *link;
        *link = next;
      }
    }
    node = next;
  }
  nodes_[static_cast<size_t>(node)].value = value;
}

}  // namespace qb
