#include "core/method/reconstruction/rtn.h"

namespace qb {
namespace {

class Rtn final : public Method {
 public:
  explicit Rtn(bool importance) : importance_(importance) {}
  Statistics needs() const override { return importance_ ? static_cast<Statistics>(Statistic::sum_squares) : 0; }

  void apply(BlockWork& work) override {
    for (LinearWork& linear : work.linears) {
      if (!linear.spec) continue;
      work.begin(linear);
      round_to_nearest(work, linear);
    }
  }

 private:
  bool importance_;
};

}  // namespace

void round_to_nearest(const BlockWork& work, LinearWork& linear) {
  // Sums that a stage asked for, or a recipe gives, go before those of a Gram matrix that another one collected.
  const auto it = work.statistics.find(linear.info.input);
  const at::Tensor importance = it != work.statistics.end() && it->second.sum_squares.defined() ? it->second.sum_squares : work.importance_of(linear);
  linear.quantized = linear.range ? quantize(linear.weight, *linear.spec, scale_zero(*linear.range, *linear.spec))
                                  : quantize(linear.weight, *linear.spec, work.control, {importance, {}});
}

MethodInfo rtn_info() {
  return {.name = "rtn",
          .title = "Round to nearest",
          .kind = MethodClass::reconstruction,
          .help = "Rounds every weight to the nearest code. Needs no calibration; the baseline of every comparison.",
          .source = "LLM-QBench (arXiv 2405.06001), \"Naive\"",
          .needs_calibration = false,
          .contract = rounding(),
          .knobs = {
              {"importance", "Weigh by inputs", KnobType::boolean, false, 0, 0, {}, "", "grids of storage types (q4_K, nvfp4 …) by the inputs' mean squares too, which takes calibration text", "llama.cpp's importance matrix"},
          }};
}

std::unique_ptr<Method> make_rtn(const StageSpec& stage) { return std::make_unique<Rtn>(knob<bool>(stage, "importance")); }

}  // namespace qb
