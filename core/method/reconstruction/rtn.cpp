#include "core/method/reconstruction/rtn.h"

namespace qb {
namespace {

class Rtn final : public Method {
 public:
  void apply(BlockWork& work) override {
    for (LinearWork& linear : work.linears) {
      if (!linear.spec) continue;
      work.begin(linear);
      round_to_nearest(linear, work.control);
    }
  }
};

}  // namespace

void round_to_nearest(LinearWork& linear, const Control& control) {
  linear.quantized = linear.range ? quantize(linear.weight, *linear.spec, scale_zero(*linear.range, *linear.spec))
                                  : quantize(linear.weight, *linear.spec, control);
}

MethodInfo rtn_info() {
  return {.name = "rtn",
          .title = "Round to nearest",
          .kind = MethodClass::reconstruction,
          .help = "Rounds every weight to the nearest code. Needs no calibration; the baseline of every comparison.",
          .source = "LLM-QBench (arXiv 2405.06001), \"Naive\"",
          .needs_calibration = false,
          .contract = rounding(),
          .knobs = {}};
}

std::unique_ptr<Method> make_rtn(const StageSpec&) { return std::make_unique<Rtn>(); }

}  // namespace qb
