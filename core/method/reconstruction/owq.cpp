#include "core/method/reconstruction/owq.h"

#include "core/base/error.h"
#include "core/method/reconstruction/gptq_solver.h"
#include "core/method/reconstruction/rtn.h"

namespace qb {
namespace {

class Owq final : public Method {
 public:
  Owq(const GptqOptions& options, double share) : options_(options), share_(share) {}
  Statistics needs() const override { return static_cast<Statistics>(Statistic::gram); }

  void apply(BlockWork& work) override {
    for (LinearWork& linear : work.linears) {
      if (!linear.spec) continue;
      work.begin(linear);
      const auto it = work.statistics.find(linear.info.subset);
      if (it == work.statistics.end() || !it->second.gram.defined() || it->second.tokens == 0) {
        linear.note = "no calibration token reached it: rounded to nearest";
        round_to_nearest(linear, work.control);
        continue;
      }
      const at::Tensor& gram = it->second.gram;
      const int64_t in = linear.info.in_features, count = std::min<int64_t>(in - 1, static_cast<int64_t>(share_ * static_cast<double>(in) + 0.5));
      // Sensitivity of a column: what rounding it would add to the output error, H_jj·‖Δw_j‖².
      const at::Tensor error = quantize(linear.weight, *linear.spec, work.control).dequantize().sub_(linear.weight);
      const at::Tensor sensitivity = gram.diagonal() * error.square().sum(0);
      const at::Tensor columns = std::get<0>(at::sort(std::get<1>(at::topk(sensitivity, count))));
      const int64_t group = linear.spec->granularity == Granularity::group ? linear.spec->group_size : 0;
      const auto factor = gptq_factor(gram, options_, group, columns);
      if (!factor) {
        linear.note = "the Gram matrix is not positive definite, whatever the damping: rounded to nearest";
        round_to_nearest(linear, work.control);
        continue;
      }
      linear.quantized = gptq(linear.weight, *factor, *linear.spec, linear.range, linear.kept, options_, work.control).weight;
    }
  }

 private:
  GptqOptions options_;
  double share_;
};

}  // namespace

MethodInfo owq_info() {
  return {.name = "owq",
          .title = "OWQ",
          .kind = MethodClass::reconstruction,
          .help = "GPTQ that keeps the input columns most sensitive to rounding in float16; they count in bits per weight.",
          .source = "Lee et al. 2023, arXiv 2306.02272",
          .needs_calibration = true,
          .rounds = true,
          .knobs = {
              {"share", KnobType::real, 0.01, 0, 0.5, {}, "", "share of each linear's input columns that is kept", "OWQ keeps 0.01 bit a weight's worth"},
              {"percdamp", KnobType::real, 0.01, 0, 10, {}, "", "added to the diagonal, as a share of its mean", "GPTQ"},
              {"blocksize", KnobType::integer, int64_t{128}, 1, 4096, {}, "columns", "columns whose errors reach the rest in one product", "GPTQ"},
          }};
}

std::unique_ptr<Method> make_owq(const StageSpec& stage) {
  GptqOptions options;
  options.damping = std::get<double>(knob(stage, "percdamp"));
  options.block_size = std::get<int64_t>(knob(stage, "blocksize"));
  return std::make_unique<Owq>(options, std::get<double>(knob(stage, "share")));
}

}  // namespace qb
