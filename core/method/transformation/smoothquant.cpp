#include "core/method/transformation/smoothquant.h"

#include "core/method/transformation/scale_group.h"

namespace qb {
namespace {

class SmoothQuant final : public Method {
 public:
  SmoothQuant(double alpha, bool linears) : alpha_(alpha), linears_(linears) {}
  Statistics needs() const override { return static_cast<Statistics>(Statistic::abs_max); }

  void apply(BlockWork& work) override {
    for (const ScaleGroup& group : scale_groups(work)) {
      if (group.producer == ScaleGroup::Producer::linear && !linears_) continue;
      work.begin(work.linears[group.linears.front()]);
      at::Tensor inputs, weights;
      for (const ValueId value : group.values) {
        const auto it = work.statistics.find(value);
        if (it == work.statistics.end() || !it->second.abs_max.defined()) continue;
        inputs = inputs.defined() ? at::maximum(inputs, it->second.abs_max) : it->second.abs_max;
      }
      bool quantized = false;
      for (size_t i : group.linears) {
        const at::Tensor peak = work.linears[i].weight.abs().amax(0);
        weights = weights.defined() ? at::maximum(weights, peak) : peak;
        quantized = quantized || work.linears[i].spec || work.linears[i].activations;
      }
      if (!inputs.defined() || !quantized) continue;
      apply_scale(work, group, inputs.clamp_min(1e-5).pow(alpha_) / weights.clamp_min(1e-5).pow(1 - alpha_));
    }
  }

 private:
  double alpha_;
  bool linears_;
};

}  // namespace

MethodInfo smoothquant_info() {
  return {.name = "smoothquant",
          .title = "SmoothQuant scaling",
          .kind = MethodClass::transformation,
          .help = "Divides each channel by max|x|^α / max|w|^(1−α), so that activations with outliers become as easy to quantize as weights.",
          .source = "Xiao et al. 2022, arXiv 2211.10438",
          .needs_calibration = true,
          .contract = {.keeps = Traces(Trace::transforms) | Trace::scaled | Trace::zeros, .leaves = Trace::scaled},
          .knobs = {
              {"alpha", "Migration strength", KnobType::real, 0.5, 0, 1, {}, "", "share of the difficulty that the weights take over; LLMC's configurations use 0.8", "SmoothQuant"},
              {"linears", "Scale between linears", KnobType::boolean, false, 0, 0, {}, "", "also between linears (v→o, up→down)", "this program"},
          }};
}

std::unique_ptr<Method> make_smoothquant(const StageSpec& stage) {
  return std::make_unique<SmoothQuant>(knob<double>(stage, "alpha"), knob<bool>(stage, "linears"));
}

}  // namespace qb
