#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace qb {

enum class NormKind { rms, rms_plus_one, layer, layer_plus_one };  // plus_one: multiplies by 1 + weight
constexpr bool is_layer_norm(NormKind kind) { return kind == NormKind::layer || kind == NormKind::layer_plus_one; }
constexpr bool is_plus_one(NormKind kind) { return kind == NormKind::rms_plus_one || kind == NormKind::layer_plus_one; }
enum class Activation { silu, gelu, gelu_tanh, quick_gelu, relu, relu_squared, clamped_swiglu };  // the last gated only: gpt-oss's
enum class RouterScore { softmax, sigmoid, sparse_mixer };  // sparse_mixer: PhiMoE's

// What one decoder layer computes, as a dataflow graph: operations in order, each making values of earlier ones. The forward
// pass walks it, and everything that must know the structure of a layer (what shares an input, what may be folded where, what a
// rotation touches) is derived from it. Torch-free.

using ValueId = int;  // index into LayerGraph::values; 0 is the layer's input
enum class CachePart { none, keys, values };

// A vector of every token.
struct GraphValue {
  ValueId id = 0;
  std::string name;          // unique in its layer: "normed", "context", "experts.3.input"
  int64_t width = 0;
  int producer = -1;         // operation that makes it; -1: it is the layer's input
  std::vector<int> readers;  // operations, in order, each as often as it reads
  bool hadamard = false;     // a run-time transform: all readers see x·H/√width
  CachePart cache = CachePart::none;  // a cache keeps it of every token, as attention reads it
  int64_t cache_heads = 0;   // that it then is of
  bool tapped = false;       // a linear reads it
};

// Rows of a matrix that make one value: channel c is row (c / count)·stride + first + c mod count.
struct Rows {
  int64_t groups = 1, stride = 0, first = 0, count = 0;
  int64_t of(int64_t channel) const { return channel / count * stride + first + channel % count; }
  int64_t width() const { return groups * count; }
};

// x → x normalised over its whole width, or over each of its heads. Weight and bias are the block's tensors `tensor` +
// ".weight" (of a head, or [heads, width / heads]) and ".bias" where there is one; empty: it has none.
struct NormOp {
  NormKind kind = NormKind::rms;
  double eps = 1e-6;
  std::string tensor;
  int64_t heads = 0;         // 0: the whole vector
  bool own_tensors = false;  // every head has its own: tensors "<tensor>.norms.<h>.weight"
};
// x → one value for each entry of `outputs`, from the rows of W·x + b.
struct LinearOp {
  int linear = 0;            // index into LayerSpec::linears
  std::vector<Rows> outputs;
};
// x → x with some dimensions of each head, from `first` on, rotated by the token's position.
struct RotaryOp {
  int rope = 0;              // index into Architecture::ropes
  int64_t heads = 1, first = 0;
  bool interleaved = false;  // rotated pairs are neighbours (2i, 2i + 1); else i and i + dim / 2
};
// q, k, v → the attention's context, causal. Query head h reads key/value head h / (heads / kv_heads).
struct AttentionOp {
  int64_t heads = 1, kv_heads = 1;
  double scale = 1;          // of q·k
  double softcap = 0;        // 0: none
  int64_t window = 0;        // keys a query sees, itself included; 0: all before it
  int64_t chunk = 0;         // it sees only those of its own chunk of so many tokens; 0: no chunks
  bool alibi = false;
  bool round_alibi = false;  // Falcon's: bfloat16 bias / sqrt(head_dim)
  std::string sinks;         // tensor of the block [heads]: one more score, whose share of the softmax goes nowhere; empty: none
};
// x → x · (1 + beta · ln(1 + ⌊(position + offset) / context⌋)): queries of tokens far in the text
struct PositionScaleOp { double beta = 0; int64_t context = 1, offset = 0; };
struct ClampOp { double limit = 0; };                         // x → x between −limit and limit
// a [heads · n], b [m] → of each head a's n channels and then all of b: a rotated key that all heads share
struct JoinOp { int64_t heads = 1; };
struct ConcatenateOp {};                                      // values → their channels one after the other
struct SplitOp {};                                            // x → values of its channels, one after the other
// x → each channel's causal convolution over the tokens, by the block's tensor `tensor`.weight [width, 1, kernel] (and .bias)
struct ConvolutionOp { std::string tensor; int64_t kernel = 1; };
struct MultiplyOp {};                                         // a, b → a · b
struct ScaleOp { double factor = 1; };                        // x → factor · x
struct ChannelScaleOp { std::string tensor; };                // x → x · the block's tensor [width]
// Hidden states of several streams, of which a layer computes one (AltUp, arXiv 2301.13310).
// x → C·tanh(scale · R·x), by the block's tensors router [n, width] and coefficients [m, n], without ".weight"
struct StreamRouterOp { std::string router, coefficients; double scale = 1; };
struct PredictOp {};                                          // x_0 … x_n−1, c [n · n] → for each j: x_j + Σ_k c[j, k] · x_k
struct CorrectOp {};                                          // x_0 … x_n−1, d, c [n] → for each j: x_j + (1 + c_j) · d
// token → what this layer gets of the token's id beside the hidden states: the decoder knows how
struct TokenInputOp { int64_t layer = 0; };
// x → relu(x − mean − deviations · standard deviation): the share of the channels that a normal distribution has above
struct SparseGateOp { double deviations = 0; };
struct SigmoidGateOp {};                                      // x, gate → x · sigmoid(gate)
// q, k [key_heads · key_dim], v [value_heads · value_dim], b, a [value_heads] → o [value_heads · value_dim]: the gated delta
// rule (arXiv 2412.06464) with q and k normalised to length 1, by the block's tensors decay and step [value_heads]
struct DeltaRuleOp { int64_t key_heads = 1, value_heads = 1; std::string decay, step; };
struct ActivationOp { Activation kind = Activation::silu; };  // x → act(x)
struct GatedOp { Activation kind = Activation::silu; };       // gate, up → act(gate) · up
struct AddOp { double scale = 1; };                           // a, b → scale · a + b
// x → weights [tokens, per_token], experts [tokens, per_token]: scores of W·x (+ bias), of which the highest are chosen
struct RouterOp {
  std::string tensor;        // of the block, [experts, width], without ".weight"; its bias, if any, with ".bias"
  int64_t experts = 1, per_token = 1;
  RouterScore score = RouterScore::softmax;
  bool wide = false;         // W·x in float32
  std::string choice_bias;   // tensor [experts], added to scores for the choice only; empty: none
  int64_t groups = 1, used_groups = 1;  // experts outside of the best groups are not chosen
  bool group_by_two = false; // a group is as good as the sum of its best two scores; else as its best
  bool normalise = false;    // the chosen experts' weights sum to one
  double normalise_eps = 0;  // added to that sum; below 0: the sum is at least its absolute value
  double scale = 1;          // of the weights
  double jitter = 0;         // sparse_mixer's threshold
};
// x, experts, weights → rows of the tokens that chose this expert (times its weight where the input is weighed), and which
// those are ([n, 2]: token, rank). Where none did, both are undefined, and so is what is made of them.
struct DispatchOp { int expert = 0; bool weigh = false; };
struct ZeroOp {};                                             // x → zeros like x
// sum, y, chosen, weights → sum with the expert's rows added to their tokens, each times its weight (unless its input was)
struct CombineOp { bool weigh = true; };
struct ShareOp { std::string tensor; };                       // y, x → y · sigmoid(x·wᵀ); w: [1, width]

using OperationKind = std::variant<NormOp, LinearOp, RotaryOp, AttentionOp, PositionScaleOp, ClampOp, JoinOp, ConcatenateOp, SplitOp, ConvolutionOp, MultiplyOp, ScaleOp,
                                   ChannelScaleOp, StreamRouterOp, PredictOp, CorrectOp, TokenInputOp, SparseGateOp, SigmoidGateOp, DeltaRuleOp, ActivationOp, GatedOp, AddOp,
                                   RouterOp, DispatchOp, ZeroOp, CombineOp, ShareOp>;

struct Operation {
  OperationKind kind;
  std::vector<ValueId> inputs, outputs;
  std::vector<bool> last_use;  // of each input: nobody reads it afterwards
  bool before_tap = false;     // what it makes is a linear's input, or leads to one
};

class LayerGraph {
 public:
  // The layer's input, [width].
  ValueId input(std::string name, int64_t width);
  // Adds an operation whose outputs have these names and widths.
  std::vector<ValueId> add(OperationKind kind, std::vector<ValueId> inputs, const std::vector<std::pair<std::string, int64_t>>& outputs);
  ValueId add(OperationKind kind, std::vector<ValueId> inputs, std::string name, int64_t width);
  // Names the layer's output; nothing is added afterwards.
  void finish(ValueId output);

  const std::vector<GraphValue>& values() const { return values_; }
  const std::vector<Operation>& operations() const { return operations_; }
  const GraphValue& value(ValueId id) const { return values_[static_cast<size_t>(id)]; }
  ValueId output() const { return output_; }
  void rotate_at_run_time(ValueId id) { values_[static_cast<size_t>(id)].hadamard = true; }

  // The operation that makes a value; nullptr for the layer's input.
  const Operation* producer(ValueId id) const;
  // The operation of a linear.
  const Operation& linear(int index) const;

 private:
  std::vector<GraphValue> values_;
  std::vector<Operation> operations_;
  std::vector<int> of_linear_;  // operation of each linear
  ValueId output_ = 0;
};

// Everything that reads one vector by its channels: linears, routers, and linears of experts that see some of its tokens.
struct ChannelReaders {
  std::vector<int> linears;
  std::vector<ValueId> values;       // the vector, and what experts see of it: whose statistics are of its channels
  std::vector<std::string> routers;  // further matrices [n, width] among the block's tensors, without ".weight"
  bool complete = true;              // nothing else reads it: what its readers take in by channel can be undone in the producer
};
ChannelReaders channel_readers(const LayerGraph& graph, ValueId id);

// Where a factor of a value's channels can be taken in: at the rows of a linear or the weights of a norm that make them, through
// operations that pass it on (attention, the up side of a gate, ReLU, its square) and whose values have no other reader.
struct ChannelSource {
  int linear = -1;
  const NormOp* norm = nullptr;  // of the graph
  std::vector<int64_t> rows;     // [width]: the row, or the index of the weight. Several channels may share one
  double power = 1;              // a factor s of the row is s^power of the channel
  bool exists() const { return linear >= 0 || norm; }
};
ChannelSource channel_source(const LayerGraph& graph, ValueId id);

// What touches the residual stream, the sum of the layer's input and of what its branches add to it.
struct ResidualStream {
  struct Reader {
    std::string norm;                  // tensor of the RMS norm that the stream passes before it is read
    NormKind kind = NormKind::rms;
    std::vector<int> linears;
    std::vector<std::string> routers;  // as in ChannelReaders
  };
  std::vector<Reader> readers;
  std::vector<int> writers;            // linears whose outputs are added
  std::string obstacle;                // why a rotation of the stream cannot be folded into readers and writers; empty: it can
};
ResidualStream residual_stream(const LayerGraph& graph);

// Which tokens the rows of a value are of: a value [rows, 2] (token, rank) of a DispatchOp; nullopt: all of them in order.
std::optional<ValueId> token_choice(const LayerGraph& graph, ValueId id);

// Whether a value is the attention's context, or made of it element by element.
bool is_context(const LayerGraph& graph, ValueId id);

// The linear that ends the smallest module around linears: the first that all they make flows into, and nothing else;
// −1: they end in different places, or in the layer's output.
int module_end(const LayerGraph& graph, const std::vector<int>& linears);

// The keys and values that a cache keeps of a layer; what an earlier layer made and this one reads again is that layer's.
struct CachedValues {
  ValueId keys = -1, values = -1;
  int64_t heads = 0, key_dim = 0, value_dim = 0;
  int linear = -1;  // that makes the keys
  bool exists() const { return keys >= 0; }
};
CachedValues cached_values(const LayerGraph& graph);
// Why there are none, where a layer attends nevertheless: keys and values are made of a latent, and that is what caches keep.
bool caches_latent(const LayerGraph& graph);

// Whether a linear makes queries or keys: what attention's scores are made of.
bool makes_scores(const LayerGraph& graph, int linear);

}  // namespace qb
