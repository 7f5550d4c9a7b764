#pragma once
#include <ATen/ATen.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/model/model.h"
#include "core/model/prediction.h"

namespace qb {

struct Linear {
  LinearInfo info;
  at::Tensor weight;  // [out, in], Decoder::weight_dtype() on its device
  at::Tensor bias;    // [out] or undefined
};

// Called just before a linear multiplies. `x` is its input [tokens, in]; linears that read one value see the same tensor.
// May return a replacement (activation fake-quantization), or `x` itself.
using LinearTap = std::function<at::Tensor(const Linear& linear, const at::Tensor& x)>;

// Called once for every value of a layer, as soon as it is made (after its run-time transform), for all its readers:
// [tokens, width], or by head [tokens, heads, width / heads]. May return a replacement, or `x` itself. An expert's values
// are of the tokens routed to it, and not made where there are none. What no linear reads may be written over afterwards.
using ValueTap = std::function<at::Tensor(const GraphValue& value, const at::Tensor& x)>;

// Called for the keys and for the values that a cache would keep of a block's tokens, as attention reads them (keys after RoPE):
// GraphValue::cache tells which. [tokens, width] or by head. May return a replacement, or `x` itself.
using CacheTap = std::function<at::Tensor(int block, const GraphValue& value, const at::Tensor& x)>;

// Keys and values of the tokens before, of every block: a pass that is given one continues these sequences.
class KeyValueCache {
 public:
  int64_t tokens(int block) const;
  // Takes in keys and values of new tokens [batch, new, heads, dim]; returns those of all tokens so far.
  std::pair<at::Tensor, at::Tensor> append(int block, const at::Tensor& keys, const at::Tensor& values);

 private:
  struct Entry {
    at::Tensor keys, values;  // with room for more
    int64_t tokens = 0;
  };
  std::map<int, Entry> blocks_;
};

struct PackedPieces;

// What a forward pass through a block is given beside weights and hidden states.
struct ForwardContext {
  LinearTap at_linear;
  ValueTap at_value;
  KeyValueCache* cache = nullptr;   // positions follow the tokens in it; without: positions 0 … seq − 1
  std::optional<ValueId> stop_at;   // the pass ends with this value and returns it, [tokens, width]
  bool taps_only = false;           // only what leads to inputs of linears is computed, and nothing returned
  CacheTap at_cache = {};           // before at_value
  const PackedPieces* pieces = nullptr;  // hidden is a row of pieces of sequences; not with a cache
};

// One decoder layer's weights, loaded: copies, never views of the file. Weights may be replaced in place
// (`linears[i].weight = …`, any floating dtype) between forwards; the order of `linears` is the architecture's.
struct Block {
  int index = 0;
  std::vector<Linear> linears;
  std::map<std::string, at::Tensor> others;  // norms, routers, q/k norms … by their name inside the block
  Linear* find(const std::string& name);
};

// The one forward pass of all families, driven by the Architecture table.
// What is called hidden here is [batch, seq, Architecture::carried_width()] in the compute dtype: all that one block hands to the
// next. Not thread-safe; make one per thread.
class Decoder {
 public:
  // source may be an overlay of model->source. dtype: kFloat, kBFloat16 or kHalf.
  Decoder(std::shared_ptr<const Model> model, TensorSourcePtr source, at::ScalarType dtype, at::Device device = at::kCPU);
  ~Decoder();

  const Architecture& architecture() const;
  at::ScalarType dtype() const;    // of hidden states, and what weights are rounded to
  // What loaded weights are held in and blocks compute in: dtype(), except on a CPU without bfloat16 instructions, where
  // bfloat16 and float16 weights are widened (exactly) to float32 and only a block's output is rounded.
  at::ScalarType weight_dtype() const;
  at::Device device() const;
  int blocks() const;

  // ids [batch, seq] int64 → hidden states; first: position of the first. InputError on a foreign id.
  at::Tensor embed(const at::Tensor& ids, int64_t first = 0);
  at::Tensor embed(const at::Tensor& ids, const PackedPieces& pieces);  // ids [1, tokens]
  Block load_block(int index) const;                       // from the source, rounded to dtype, in weight_dtype on device
  const LayerGraph& graph(int index) const;                // of a block
  // Of what a block made, the part that is hidden states, whose error counts: [.., Architecture::hidden_width()].
  at::Tensor hidden_part(const at::Tensor& carried) const;
  // Causal; an expert's linears see only the tokens routed to it.
  at::Tensor forward(const Block& block, const at::Tensor& hidden, const ForwardContext& context = {}) const;
  // The same in the dtype that weights are held in, with gradients towards the block's tensors that require them.
  at::Tensor forward_learning(const Block& block, const at::Tensor& hidden, const ForwardContext& context = {}) const;
  at::Tensor before_head(const at::Tensor& hidden);        // what the head multiplies, [batch · seq, Architecture::embedding_size] in weight_dtype()
  at::Tensor logits(const at::Tensor& hidden);             // final norm + head → [batch, seq, vocabulary] float32
  // Sum of cross-entropies of the shifted targets of ids [batch, seq] without materialising all logits;
  // returns [batch, seq−1] float32 negative log-likelihoods.
  at::Tensor negative_log_likelihood(const at::Tensor& hidden, const at::Tensor& ids);
  // −log p(targets[i]) of what rows[i] of hidden [n, carried width] predicts; rows, targets: [m] int64 → [m] float32.
  at::Tensor negative_log_likelihood(const at::Tensor& hidden, const at::Tensor& rows, const at::Tensor& targets);
  // Σ over tokens of KL(teacher ‖ hidden) between the predictions of two hidden states behind the last
  // block, and its gradient by `hidden`, in the dtype that weights are held in. of: whose norm and head the teacher's go through; nullptr: its own.
  std::pair<double, at::Tensor> divergence(const at::Tensor& hidden, const at::Tensor& teacher, Decoder* of = nullptr);
  // What `hidden` [1, n, ..] predicts of the tokens `targets` [n], beside what `reference` [n, width], the before_head of another model, does
  // through that model's head. InputError where their vocabularies differ in size.
  PredictionComparison compare(const at::Tensor& hidden, const at::Tensor& reference, Decoder& of, const at::Tensor& targets);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace qb
