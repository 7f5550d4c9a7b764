#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/model/layer_graph.h"

namespace qb {

enum class PositionKind { rotary, alibi, alibi_scaled, learned };  // alibi_scaled: Falcon's, bfloat16 bias / sqrt(head_dim)
// How one fused matrix holds query, key and value rows.
// concatenated: all q, all k, all v. grouped: per key/value head its queries, then k, then v.
enum class QkvLayout { separate, concatenated, grouped };
enum class HeadNorm { none, rms, layer, whole, unit };  // of each query and key head; whole: over all heads at once; unit: RMS without weight
enum class Mixer { attention, latent, delta, convolution };  // how a layer's tokens see each other

// Rotary frequencies of one kind of layer. Formulas and field names: transformers' modeling_rope_utils.
struct RopeSpec {
  enum class Kind { plain, linear, dynamic, llama3, yarn, longrope, divisors };
  Kind kind = Kind::plain;
  double theta = 10000;
  int64_t dim = 0;                 // leading dimensions of a head that are rotated, even
  double factor = 1;
  double low_freq_factor = 1, high_freq_factor = 4;
  double beta_fast = 32, beta_slow = 1;
  bool truncate = true;            // yarn: correction range rounded outwards
  double attention_factor = 1;     // multiplies cos and sin
  double long_attention_factor = 0;  // the same of texts beyond original_context; 0: no other
  int64_t original_context = 0;
  std::vector<double> short_factor, long_factor;  // [dim / 2]; divisors (GGUF's rope_freqs) uses short_factor
};

// A tensor that a model must have.
struct TensorSpec {
  std::string name;                // canonical; inside a block without the block's prefix
  std::vector<int64_t> shape;
  std::string gguf;                // the same in GGUF files; empty: those do not have it
  bool plus_one = false;           // GGUF stores 1 + weight
  int64_t gguf_rows = 0, gguf_row = 0;  // one row of a stored [gguf_rows, …]; 0: the whole
  std::vector<std::string> aliases;  // other names that files use for it
  bool maybe_row = false;          // a vector that may be stored as a matrix of one row
};

// An expert's matrix inside one tensor of all experts: [experts, rows, in], or [experts, in, rows] where it is transposed.
struct FusedExpert {
  std::vector<std::string> tensors;  // inside the block, the first that is there: "mlp.experts.gate_up_proj"; empty: it is stored by itself only
  int64_t rows = 0, first_row = 0, row_step = 1;  // of the stored rows; 2: gate and up rows in turns
  bool transposed = false;
};

struct LinearSpec {
  std::string name;                // inside the block, without ".weight"
  std::string subset;              // kind of its input, for people: "qkv", "o", "gate_up", "experts.3.down"
  int64_t out = 0, in = 0;
  bool bias = false;
  ValueId input = 0;               // the value that it reads
  std::string gguf;                // "attn_q"
  std::vector<std::string> gguf_parts;  // where a file may split what is fused here: one stem for each value it makes
  bool transposed = false;         // Hugging Face stores [in, out]
  int expert = -1;
  FusedExpert fused;
};

// One decoder block. `linears` are what may be quantized; `others` are norms, routers and the like.
struct LayerSpec {
  // What a family decides for each layer; build_layers makes the rest of it.
  Mixer mixer = Mixer::attention;
  int64_t window = 0;              // keys a query sees, itself included; 0: all before it
  int64_t chunk = 0;               // of AttentionOp
  int rope = 0;                    // index into Architecture::ropes; −1: queries and keys are not rotated
  double attention_scale = 0;      // of q·k; 0: the architecture's
  HeadNorm head_norm = HeadNorm::none;  // where it is the layer's own; none: the architecture's
  PositionScaleOp query_scale;     // beta 0: none
  bool experts = false;
  std::optional<double> gate_deviations;  // of SparseGateOp; none: every channel of the gate counts
  // Keys and values that other layers share: which of the architecture's pairs this one hands on, or takes instead of making
  // its own; −1: none.
  int hands_kv = -1, takes_kv = -1;

  LayerGraph graph;
  std::vector<LinearSpec> linears;
  std::vector<TensorSpec> others;
  std::vector<std::string> unread, gguf_unread;  // tensors that files of this layer may hold and that it does not need
};

// Whether a layer's tokens know of each other by keys and values alone.
inline bool sees_by_attention(const LayerSpec& layer) { return layer.mixer == Mixer::attention || layer.mixer == Mixer::latent; }

// Where a family keeps its tensors, in one format. Empty: it has none such.
struct NameTable {
  std::string embedding, final_norm, head, block;                        // block: "model.layers."
  std::string input_norm, mlp_norm;                                      // inside a block from here on
  std::string q, k, v, qkv, o;
  std::string gate, up, gate_up, down;
  std::string positions, embedding_norm, project_in, project_out;        // outside blocks
  std::string post_attention_norm, post_mlp_norm, q_norm, k_norm;
  std::string router, expert, expert_gate, expert_up, expert_down;       // expert: "mlp.experts."
  std::string shared_gate, shared_up, shared_down, shared_router;        // shared_router empty: the shared expert is added as it is
  std::string choice_bias, sinks;                                        // whole names, without a suffix of their own
  std::string fused_gate_up, fused_down, shared_gate_up;                 // of all experts, beside transformers' own names; a fused shared expert
  std::string q_a, q_a_norm, q_b, kv_a, kv_a_norm, kv_b;                 // latent attention
  std::string delta_qkv, delta_qkvz, delta_z, delta_ba, delta_b, delta_a, delta_norm, delta_out, convolution, decay, step;
  std::string convolution_in, convolution_out;                           // LFM2's
  std::string token_inputs, token_projection, token_norm, streams_in, streams_out;  // Gemma 3n's, outside blocks
};

// Latent attention (DeepSeek-V2, arXiv 2405.04434): queries and keys come from narrow vectors. Widths of a head's parts.
struct LatentSpec {
  int64_t q_rank = 0;              // 0: queries straight from the hidden states
  int64_t kv_rank = 0, nope_dim = 0, rope_dim = 0, value_dim = 0;
  double norm_eps = 1e-6;          // of the narrow vectors
  bool bias = false;               // of the matrices that make them
};

// The gated delta net of Qwen3-Next.
struct DeltaSpec {
  int64_t key_heads = 0, value_heads = 0, key_dim = 0, value_dim = 0, kernel = 0;
};

// Gemma 3n's hidden states: several streams, of which a layer computes one and predicts the others. Blocks hand on, in this
// order: the streams, the digits of the token's id, pairs of keys and values.
struct StreamSpec {
  int64_t count = 1, active = 0;   // 1: plain hidden states
  bool scale_output = true;        // of the corrected active stream, before the others get their share of it
  int64_t laurel_rank = 0;         // of a low-rank branch beside attention (LAuReL, arXiv 2411.07501)
  int64_t token_width = 0, token_rows = 0;  // of what each layer gets of a token's id; ids behind the last row get the first's
  int64_t token_layers = 0;        // how many the files have it for, also where blocks have been dropped
  int64_t kv_pairs = 0;            // keys and values that layers share
};
inline constexpr int64_t kTokenDigits = 4;

// GGUF's names, the same for most families. Experts are stored in one tensor a kind.
NameTable gguf_names();

// The description that drives the one forward pass. Torch-free.
struct Architecture {
  std::string family;
  int64_t blocks = 0, hidden_size = 0, heads = 0, kv_heads = 0, head_dim = 0, intermediate_size = 0, vocabulary = 0;
  int64_t context_length = 0;      // 0: not bounded
  bool tied_embeddings = false;

  NormKind norm = NormKind::rms;
  double norm_eps = 1e-6;
  bool norm_affine = true;         // norms have weights (and biases, for layer norms)
  bool norm_bias = true;           // layer norms have biases
  bool final_norm = true;
  bool norm_after = false;         // OPT-350M: norms follow the residual addition
  bool residual_after_norm = false;  // Bloom's apply_residual_connection_post_layernorm
  bool parallel = false;           // attention and MLP read the same input and are added together
  HeadNorm head_norm = HeadNorm::none;
  bool head_norm_per_head = false;  // every head has its own weights: tensors of their own (StableLM)
  bool head_norm_stacked = false;  // or rows of one [heads, head_dim] (Cohere)
  bool head_norm_bias = false;
  bool head_norm_after_rope = false;
  bool value_norm = false;         // values of each head are normalised, without weights

  PositionKind position = PositionKind::rotary;
  int64_t position_offset = 0;     // OPT: position p reads row p + 2
  std::vector<RopeSpec> ropes;
  bool rope_interleaved = false;   // as RotaryOp's
  QkvLayout qkv = QkvLayout::separate;
  bool qkv_bias = false, o_bias = false, mlp_bias = false, head_bias = false;
  double qkv_clip = 0;             // queries, keys and values stay between −clip and clip; 0: as they are
  bool output_gate = false;        // q_proj makes, per head, a query and a gate of the attention's context (Qwen3-Next)
  bool transposed_linears = false; // GPT-2's Conv1D
  LatentSpec latent;
  DeltaSpec delta;
  StreamSpec streams;
  int64_t convolution_kernel = 0;  // LFM2's
  bool convolution_bias = false;
  double attention_scale = 0;      // of q·k
  double attention_softcap = 0, logit_softcap = 0;  // 0: none
  double embedding_scale = 1, residual_scale = 1, logit_scale = 1;
  int64_t embedding_size = 0;      // OPT-350M's embedding is narrower than its hidden states; else hidden_size
  int64_t embedding_rows = 0;      // where there are more than the head has; 0: vocabulary
  bool normalise_head = false;     // rows of the head have length 1 (Baichuan 2)

  Activation activation = Activation::silu;
  bool gated = true;               // down(act(gate) · up)
  int64_t experts = 0, experts_per_token = 0, expert_intermediate_size = 0, shared_intermediate_size = 0;
  bool normalise_expert_weights = false;
  // What else routes (RouterOp). Its tensor's name and the numbers of experts are those above.
  RouterOp router;
  bool router_bias = false, expert_bias = false, shared_bias = false;
  bool weigh_expert_inputs = false;
  bool experts_transposed = false, experts_interleaved = false;  // how tensors of all experts lie in Hugging Face files
  std::vector<int64_t> stored_blocks;  // number in the files of each block; empty: its own

  NameTable names, gguf = gguf_names();
  std::vector<LayerSpec> layers;
  std::vector<TensorSpec> globals;  // outside blocks, full canonical names, in reading order

  // Of what one block hands to the next for every token; the first hidden_width() of it are hidden states. The rest is for later
  // blocks to read, and no part of any block's error.
  int64_t hidden_width() const { return streams.count * hidden_size; }
  int64_t carried_width() const {
    return hidden_width() + (streams.token_width > 0 ? kTokenDigits : 0) + streams.kv_pairs * 2 * kv_heads * head_dim;
  }

  std::string block_prefix(int64_t index) const { return names.block + std::to_string(index) + "."; }
};

// Fills each layer's graph and lists of tensors, and the tensors outside of layers, from the fields above.
void build_layers(Architecture& architecture);

std::string_view name_of(Activation activation);
std::string_view name_of(RopeSpec::Kind kind);

}  // namespace qb
