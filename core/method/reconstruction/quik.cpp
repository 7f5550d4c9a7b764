#include "core/method/reconstruction/quik.h"

#include <fmt/format.h>

#include "core/method/reconstruction/kept_columns.h"

namespace qb {
namespace {

class Quik final : public Method {
 public:
  Quik(const GptqOptions& options, int64_t columns, double share) : options_(options), columns_(columns), share_(share) {}
  Statistics needs() const override { return static_cast<Statistics>(Statistic::gram) | static_cast<Statistics>(Statistic::abs_max); }

  std::string problem(const LinearInfo& linear, const std::optional<QuantSpec>& spec) const override {
    if (!spec || share_ > 0 || columns_ < linear.in_features) return {};
    return fmt::format("quik keeps {} columns of {}: set columns lower, or a share", columns_, linear.in_features);
  }

  void apply(BlockWork& work) override {
    gptq_keeping_columns(work, options_, [&](const LinearWork& linear, const ValueStatistics& statistics) {
      return largest_columns(statistics.abs_max, share_ > 0 ? columns_of_share(linear, share_) : columns_);
    });
  }

 private:
  GptqOptions options_;
  int64_t columns_;
  double share_;
};

}  // namespace

MethodInfo quik_info() {
  MethodInfo info{.name = "quik",
                  .title = "QUIK",
                  .kind = MethodClass::reconstruction,
                  .help = "GPTQ that keeps the input columns of the largest activations in float16; they count in bits per weight. Where a scheme "
                          "quantizes activations, those of kept columns are quantized too.",
                  .source = "Ashkboos et al. 2023, arXiv 2310.09259",
                  .needs_calibration = true,
                  .contract = rounding({}, StorageUse::none),
                  .knobs = {{"columns", "Columns kept", KnobType::integer, int64_t{256}, 0, 1000000, {}, "columns", "input columns of each linear that are kept", "QUIK"},
                            {"share", "Share kept", KnobType::real, 0.0, 0, 0.5, {}, "", "above 0: this share of each linear's columns instead", "this program"}}};
  for (KnobInfo& knob : solver_knobs()) info.knobs.push_back(std::move(knob));
  return info;
}

std::unique_ptr<Method> make_quik(const StageSpec& stage) {
  return std::make_unique<Quik>(solver_options(stage), knob<int64_t>(stage, "columns"), knob<double>(stage, "share"));
}

}  // namespace qb
