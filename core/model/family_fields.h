#pragma once
#include "core/model/families.h"

namespace qb {

// What the rows of the architecture table are read with.
inline constexpr int64_t kMaxBlocks = 1024, kMaxHeads = 4096, kMaxWidth = 1 << 20, kMaxVocabulary = 1 << 27, kMaxExperts = 4096;

Activation read_activation(const ConfigFields& f, const std::vector<std::string>& keys, std::optional<std::string> fallback = {});
// Fields that every family has. kv_heads: value when num_key_value_heads is missing; 0: as many as heads, -1: required.
void read_dimensions(const ConfigFields& f, Architecture& a, int64_t kv_heads = 0);
// Of families that know neither num_key_value_heads nor head_dim. older: keys that came before today's and mean the same.
struct OlderNames {
  std::vector<std::string> hidden_size, blocks, heads;
};
void read_plain_dimensions(const ConfigFields& f, Architecture& a, const OlderNames& older = {});
void read_intermediate(const ConfigFields& f, Architecture& a);
void read_context(const ConfigFields& f, Architecture& a);
void read_tied(const ConfigFields& f, Architecture& a, bool fallback);
// Every dimension of a head is rotated, whatever the configuration says.
RopeDefaults whole_rotation(double theta = 10000);

// What families like Llama, and like Qwen's with experts, have in common.
NameTable llama_names();
NameTable with_qwen_experts(NameTable names);        // one by one under "mlp.experts."
NameTable with_qwen_shared_expert(NameTable names);  // and a shared one with a router of its own
void llama_like(const ConfigFields& f, Architecture& a, int64_t kv_heads, const RopeDefaults& rope);
void read_experts(const ConfigFields& f, Architecture& a, const std::vector<std::string>& count_keys, int64_t used);
void read_qwen_experts(const ConfigFields& f, Architecture& a, const std::vector<std::string>& count_keys, int64_t used);

// Rows of families whose layers are of several kinds: Qwen3-Next, Qwen3.5, LFM2 (in families_hybrid.cpp).
std::vector<Family> hybrid_families();

// Rows of families with LayerNorm and one matrix for queries, keys and values: BLOOM, Falcon, GPT-NeoX (in families_fused.cpp).
std::vector<Family> fused_families();

}  // namespace qb
