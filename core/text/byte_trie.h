#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

namespace qb {

// Byte strings with a number each; finds those that begin at a place in a text. Children are a sorted list a node,
// the root's a table.
class ByteTrie {
 public:
  ByteTrie() : nodes_(1) { root_.fill_missing(); }
  void add(std::string_view key, int32_t value);  // the last value of a key holds
  bool empty() const { return nodes_.size() == 1; }
  bool starts(unsigned char byte) const { return root_.child[byte] >= 0; }

  // Calls on_key(length, value) for every key that is a prefix of `text`, shortest first.
  template <class F>
  void each_prefix(std::string_view text, F&& on_key) const {
    int32_t node = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      node = child(node, static_cast<unsigned char>(text[i]));
      if (node < 0) return;
      if (nodes_[static_cast<size_t>(node)].value >= 0) on_key(i + 1, nodes_[static_cast<size_t>(node)].value);
    }
  }

 private:
  struct Node {
    int32_t value = -1, first_child = -1, sibling = -1;  // siblings are sorted by byte
    unsigned char byte = 0;
  };
  struct Root {
    int32_t child[256];
    void fill_missing() {
      for (auto& c : child) c = -1;
    }
  };
  int32_t child(int32_t node, unsigned char byte) const {
    if (node == 0) return root_.child[byte];
    int32_t c = nodes_[static_cast<size_t>(node)].first_child;
    while (c >= 0 && nodes_[static_cast<size_t>(c)].byte < byte) c = nodes_[static_cast<size_t>(c)].sibling;
    return c >= 0 && nodes_[static_cast<size_t>(c)].byte == byte ? c : -1;
  }
  std::vector<Node> nodes_;
  Root root_;
};

}  // namespace qb
