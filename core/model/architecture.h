#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace qb {

// The description that drives the one forward pass.
struct Architecture {
  std::string family;
  int64_t blocks = 0, hidden_size = 0, heads = 0, kv_heads = 0, head_dim = 0, intermediate_size = 0, vocabulary = 0;
  int64_t context_length = 0;
  bool tied_embeddings = false;
};

}  // namespace qb
