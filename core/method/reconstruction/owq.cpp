#include "core/method/reconstruction/owq.h"

#include "core/method/reconstruction/kept_columns.h"

namespace qb {
namespace {

class Owq final : public Method {
 public:
  Owq(const GptqOptions& options, double share) : options_(options), share_(share) {}
  Statistics needs() const override { return static_cast<Statistics>(Statistic::gram); }

  void apply(BlockWork& work) override {
    gptq_keeping_columns(work, options_, [&](const LinearWork& linear, const ValueStatistics& statistics) {
      // Sensitivity of a column: what rounding it would add to the output error, H_jj·‖Δw_j‖².
      const at::Tensor error = quantize(linear.weight, *linear.spec, work.control).dequantize().sub_(linear.weight);
      return largest_columns(statistics.gram.diagonal() * error.square().sum(0), columns_of_share(linear, share_));
    });
  }

 private:
  GptqOptions options_;
  double share_;
};

}  // namespace

MethodInfo owq_info() {
  MethodInfo info{.name = "owq",
                  .title = "OWQ",
                  .kind = MethodClass::reconstruction,
                  .help = "GPTQ that keeps the input columns most sensitive to rounding in float16; they count in bits per weight.",
                  .source = "Lee et al. 2023, arXiv 2306.02272",
                  .needs_calibration = true,
                  .contract = rounding({}, StorageUse::none),
                  .knobs = {{"share", "Share kept", KnobType::real, 0.01, 0, 0.5, {}, "", "share of each linear's input columns that is kept", "OWQ keeps 0.01 bit a weight's worth"}}};
  for (KnobInfo& knob : solver_knobs()) info.knobs.push_back(std::move(knob));
  return info;
}

std::unique_ptr<Method> make_owq(const StageSpec& stage) {
  return std::make_unique<Owq>(solver_options(stage), knob<double>(stage, "share"));
}

}  // namespace qb
