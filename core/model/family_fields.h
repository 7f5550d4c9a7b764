#pragma once
#include <functional>

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
// A Llama's fields, from the dimensions to the rope. kv_heads: as in read_dimensions.
void llama_like(const ConfigFields& f, Architecture& a, int64_t kv_heads, const RopeDefaults& rope);
// One window for all layers. missing: where the key does not stand; a null is "no window".
void set_window(const ConfigFields& f, Architecture& a, std::optional<int64_t> missing);
// layer_types, one per block; `sliding` says which blocks slide where the configuration does not.
void set_layer_windows(const ConfigFields& f, Architecture& a, int64_t window, const std::function<bool(int64_t)>& sliding);
// Qwen's: sliding layers from max_window_layers on, where use_sliding_window says so.
void read_qwen_windows(const ConfigFields& f, Architecture& a);
// Numbers of experts and how many of them serve a token; used 0: the configuration must say.
void read_experts(const ConfigFields& f, Architecture& a, const std::vector<std::string>& count_keys, int64_t used,
                  const std::string& used_key = "num_experts_per_tok");

// Names that many families share.
NameTable llama_names();
NameTable mixtral_names();
NameTable qwen3_names();
NameTable with_qwen_experts(NameTable names);

// Rows of families with LayerNorm and one matrix for queries, keys and values: BLOOM, Falcon, GPT-NeoX (in families_fused.cpp).
std::vector<Family> fused_families();
// Dense families with RMS norms (in families_dense.cpp), and with layer norms (in families_layer_norm.cpp).
std::vector<Family> dense_families();
std::vector<Family> layer_norm_families();

}  // namespace qb
