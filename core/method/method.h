#pragma once
#include <memory>

#include "core/base/control.h"
#include "core/method/method_info.h"
#include "core/model/decoder.h"
#include "core/quant/quantizer.h"

namespace qb {

// What a method can ask of the calibration pass; the engine collects the union of a pipeline's wishes in one pass.
enum class Statistic : unsigned { gram = 1, abs_max = 2, mean_abs = 4, rows = 8, block_io = 16 };
using Statistics = unsigned;  // bits of Statistic

// Of one subset's shared input X [tokens, in]. Undefined where nobody asked.
struct SubsetStatistics {
  int64_t tokens = 0;
  at::Tensor gram;      // XᵀX [in, in] float32
  at::Tensor abs_max;   // [in] float32
  at::Tensor mean_abs;  // [in] float32
  at::Tensor rows;      // a fixed sample of rows of X [n, in], compute dtype
};

// One linear on its way through the pipeline.
struct LinearWork {
  LinearInfo info;
  std::string module;                // full name "model.layers.0.self_attn.q_proj"
  std::optional<QuantSpec> spec;     // nullopt: stays float
  at::Tensor original;               // [out, in] float32 as loaded
  at::Tensor weight;                 // [out, in] float32 as transformed so far
  std::optional<Range> range;        // set by clipping stages
  std::optional<QuantizedWeight> quantized;  // set by the stage that rounds
};

// What a stage sees of the block at work.
struct BlockWork {
  Block& block;
  std::vector<LinearWork> linears;
  std::map<std::string, SubsetStatistics> statistics;  // by subset
  const Decoder& decoder;
  uint64_t seed = 0;
  const Control& control;
  std::function<void(const std::string& linear)> on_linear;  // progress, may be empty

  // Call before work on a linear: throws Cancelled when asked to stop, reports progress.
  void begin(const LinearWork& linear) const {
    control.checkpoint();
    if (on_linear) on_linear(linear.info.name);
  }
};

// One technique of the paper. Stateless between blocks unless it says so.
class Method {
 public:
  virtual ~Method() = default;
  virtual Statistics needs() const { return 0; }
  // Throws Cancelled when asked to stop, Error otherwise; checks control at least once a linear.
  virtual void apply(BlockWork& work) = 0;
};

// One instance per stage. Throws InputError for an unknown name or knob.
std::unique_ptr<Method> make_method(const StageSpec& stage);

}  // namespace qb
