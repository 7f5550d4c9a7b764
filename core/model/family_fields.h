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
NameTable with_qwen_experts(NameTable names);        // one by one under "mlp.experts."
NameTable with_qwen_shared_expert(NameTable names);  // and a shared one with a router of its own
NameTable deepseek_expert_names(NameTable names);

// DeepSeek-V3's experts and router (sigmoids, a bias that only chooses, groups of experts), and the keys that go with them.
// used 0: the configuration must say; dense: blocks without experts at the start.
struct DeepSeekExperts { int64_t used, shared, dense; bool normalise; };
void read_deepseek_experts(const ConfigFields& f, Architecture& a, const DeepSeekExperts& defaults);
std::vector<HarmlessKey> deepseek_harmless(std::vector<HarmlessKey> more);

// Qwen's experts: their numbers and widths, and which blocks have them.
void read_qwen_experts(const ConfigFields& f, Architecture& a, const std::vector<std::string>& count_keys, int64_t used);

// HunYuan's, dense or with experts: norms of queries and keys behind the rotation, and a base made larger by alpha.
NameTable with_hunyuan_norms(NameTable names);
void hunyuan_like(const ConfigFields& f, Architecture& a, int64_t kv_heads);

// Rows of the table, a file a kind of family: with LayerNorm and one matrix for queries, keys and values (BLOOM, Falcon, GPT-NeoX);
// dense with RMS norms; dense with layer norms; with experts; with latent attention; with layers of several kinds; with several streams of hidden states.
std::vector<Family> fused_families();
std::vector<Family> dense_families();
std::vector<Family> layer_norm_families();
std::vector<Family> expert_families();
std::vector<Family> latent_families();
std::vector<Family> hybrid_families();
std::vector<Family> stream_families();

}  // namespace qb
