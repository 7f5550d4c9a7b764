#pragma once
#include <memory>

#include "core/base/control.h"
#include "core/method/method_info.h"
#include "core/model/decoder.h"
#include "core/quant/quantizer.h"

namespace qb {

// What a method can ask of the calibration pass; the engine collects the union of a pipeline's wishes in one pass.
enum class Statistic : unsigned {
  gram = 1,
  abs_max = 2,
  mean_abs = 4,
  rows = 8,
  block_io = 16,  // the hidden states entering and leaving the float block, of every calibration batch: BlockWork::samples
  again = 32,     // BlockWork::collect_again, a further pass over the calibration batches
  sum_squares = 64,
  float_path = 128,  // the float model's own hidden states, carried along for every batch: BlockSamples::model_output
  guided = 256,      // Gram matrices of tokens that count by what the model's predictions make of them: ValueStatistics::guided, LinearWork::output_weight
};
using Statistics = unsigned;  // bits of Statistic

// Of one value X [tokens, in] that linears read. Undefined where nobody asked. A stage that transforms a value
// transforms its statistics too, so that the stages after it see the truth.
struct ValueStatistics {
  int64_t tokens = 0;
  at::Tensor gram;      // XᵀX [in, in] float32
  at::Tensor abs_max;   // [in] float32
  at::Tensor mean_abs;  // [in] float32
  at::Tensor sum_squares;  // [in] float32, the Gram matrix's diagonal
  at::Tensor rows;      // a fixed sample of rows of X [n, in], compute dtype
  std::map<size_t, at::Tensor> guided;  // by linear of the block: Σ over tokens of w·xxᵀ for each group of its output rows [groups, in, in] float32
};

// What a stage decided on a block by searching: small tensors by name, undefined where it decided for nothing.
using Choices = std::map<std::string, at::Tensor>;

// Hidden states around the block at work, [samples, seq, hidden] in the compute dtype. Do not write to them.
class BlockSamples {
 public:
  virtual ~BlockSamples() = default;
  virtual int64_t batches() const = 0;
  virtual at::Tensor input(int64_t batch) const = 0;         // what the run feeds the block
  virtual at::Tensor float_output(int64_t batch) const = 0;  // what the float block makes of it
  virtual at::Tensor model_output(int64_t batch) const = 0;  // what the float model has there; needs Statistic::float_path
};

// One linear on its way through the pipeline.
struct LinearWork {
  LinearInfo info;
  std::string module;                // full name "model.layers.0.self_attn.q_proj"
  std::optional<QuantSpec> spec;     // nullopt: stays float
  std::optional<QuantSpec> activations;  // how its input is quantized
  std::optional<InputGrid> input_grid = {};  // of static activations, fixed when all stages are through
  at::Tensor original;               // [out, in] float32 as stored in the model; never written to; undefined once transformed
  at::Tensor reference;              // [out, in] float32, what the float weight is in the coordinates that transformations chose
  at::Tensor weight;                 // [out, in] float32 as transformed, clipped, pruned so far; replaced, not written in place
  at::Tensor kept;                   // [out, in] bool: false where a weight was pruned and stays zero; undefined: all are kept.
                                     // Zero points are codes then: only those stand for an exact zero
  std::optional<Range> range;        // set by clipping stages
  std::optional<QuantizedWeight> quantized;  // set by the stage that rounds
  at::Tensor input_scale;            // [in] that the input was divided by, undefined: nothing
  at::Tensor output_scale;           // [out] that the output was divided by
  at::Tensor output_weight;          // [out] float32, mean squared gradient of the model's divergence by the output, undivided; undefined: nobody asked
  std::string note;                  // what the user should know: "Cholesky failed, rounded to nearest"
  void tell(const std::string& more) { note += note.empty() ? more : "; " + more; }

  // Transforms weight and reference alike; they stay one tensor where they were. Lets go of the original.
  void transform(const std::function<at::Tensor(const at::Tensor& weight)>& change);
};

// What a stage sees of the block at work.
struct BlockWork {
  Block& block;  // as loaded, for forward passes (linears' weights only where samples or collect_again are). Norms (`others`) and biases that a stage replaces are stored with the run
  std::vector<LinearWork> linears;
  std::map<ValueId, ValueStatistics> statistics;  // of the values that linears read
  const Decoder& decoder;
  uint64_t seed = 0;
  const Control& control;
  std::function<void(const std::string& linear)> on_linear;  // progress, may be empty

  std::optional<QuantSpec> cache = {};         // how keys and values are rounded where a cache keeps them; nullopt: not, or the block has none
  std::optional<CacheGrids> cache_grids = {};  // of a static one, fixed when all stages are through

  const BlockSamples* samples = nullptr;  // when block_io was asked for
  // The statistics of one value with the block's weights as they are now (when `again` was asked for).
  std::function<ValueStatistics(ValueId value, Statistics what)> collect_again;

  // What an earlier run's stage at this place decided on the same inputs, weights, schemes, stages before and knobs, and what this one
  // decides; nullptr: nothing is kept.
  Choices* choices = nullptr;

  // A decision of the stage at work, by a name that it gives to nothing else in the block: the kept one, or else what `search` finds, which is
  // then kept for later runs. What a search sees is all that it may depend on: the block as the stages before left it, the stage's
  // knobs, the seed, schemes of the block's linears. Stages behind rely on nothing that it changes: it is not
  // called where its result is known.
  at::Tensor choose(const std::string& name, const std::function<at::Tensor()>& search) const;

  // XᵀX of what the linear reads, [in, in]; undefined where nobody asked for it or no calibration token came.
  at::Tensor gram_of(const LinearWork& linear) const {
    const auto it = statistics.find(linear.info.input);
    return it == statistics.end() ? at::Tensor() : it->second.gram;
  }

  // Sum of squares of each input of the linear [in]; undefined as above.
  at::Tensor importance_of(const LinearWork& linear) const {
    const auto it = statistics.find(linear.info.input);
    if (it == statistics.end()) return {};
    return it->second.gram.defined() ? it->second.gram.diagonal() : it->second.sum_squares;
  }

  // Call before work on a linear: throws Cancelled when asked to stop, reports progress.
  void begin(const LinearWork& linear) const {
    control.checkpoint();
    if (on_linear) on_linear(linear.info.name);
  }
};

// The weights that the stages have made so far, put into the block for a forward pass, rounded as a checkpoint holds them.
void use_current_weights(BlockWork& work);

// One technique of the paper. Stateless between blocks unless it says so.
class Method {
 public:
  virtual ~Method() = default;
  virtual Statistics needs() const { return 0; }
  // Whether it makes its decisions through BlockWork::choose.
  virtual bool chooses() const { return false; }
  // Why it cannot work on a linear that the scheme quantizes like this (nullopt: keeps in float), known before a run; empty when
  // it can.
  virtual std::string problem(const LinearInfo&, const std::optional<QuantSpec>&) const { return {}; }
  // Throws Cancelled when asked to stop, Error otherwise; checks control at least once a linear.
  virtual void apply(BlockWork& work) = 0;
};

// One instance per stage. Throws InputError for an unknown name or knob.
std::unique_ptr<Method> make_method(const StageSpec& stage);

}  // namespace qb
