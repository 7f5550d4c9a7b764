#include "core/method/reconstruction/adadim.h"

#include "core/quant/units.h"

namespace qb {
namespace {

class AdaDim final : public Method {
 public:
  Statistics needs() const override { return static_cast<Statistics>(Statistic::gram); }
  std::string problem(const LinearInfo&, const std::optional<QuantSpec>& spec) const override {
    if (!spec || spec->granularity == Granularity::group || spec->granularity == Granularity::channel) return {};
    return "adadim chooses between channels or groups, found " + describe(*spec);
  }

  void apply(BlockWork& work) override {
    for (LinearWork& linear : work.linears) {
      if (!linear.spec) continue;
      work.begin(linear);
      const QuantSpec& along_inputs = *linear.spec;
      // A scale for g outputs of one input: a block g high and one wide.
      QuantSpec along_outputs = along_inputs;
      along_outputs.granularity = Granularity::block;
      along_outputs.block_rows = along_inputs.granularity == Granularity::group ? along_inputs.group_size : linear.info.out_features;
      along_outputs.block_cols = 1;
      QuantizedWeight first = linear.range ? quantize(linear.weight, along_inputs, scale_zero(*linear.range, along_inputs))
                                           : quantize(linear.weight, along_inputs, work.control);
      if (!misfit(along_outputs, linear.info.out_features, linear.info.in_features).empty()) {
        linear.quantized = std::move(first);
        continue;
      }
      QuantizedWeight second = quantize(within_range(linear), along_outputs, work.control);
      const at::Tensor gram = work.gram_of(linear);
      auto loss = [&](const QuantizedWeight& q) {
        const at::Tensor d = q.dequantize().sub_(linear.weight);
        return (gram.defined() ? d.matmul(gram).mul_(d) : d.square()).sum(at::kDouble).item<double>();
      };
      linear.quantized = loss(second) < loss(first) ? std::move(second) : std::move(first);
    }
  }

 private:
  // A clip is of groups along the inputs: groups along the outputs see the weights that it cuts off at its ends.
  static at::Tensor within_range(const LinearWork& linear) {
    if (!linear.range) return linear.weight;
    const at::Tensor units = to_units(linear.weight, *linear.spec);
    return from_units(at::minimum(at::maximum(units, unit_column(linear.range->low)), unit_column(linear.range->high)), *linear.spec, linear.weight.size(0),
                      linear.weight.size(1));
  }
};

}  // namespace

MethodInfo adadim_info() {
  return {.name = "adadim",
          .title = "AdaDim",
          .kind = MethodClass::reconstruction,
          .help = "Rounds each linear with groups along its inputs or along its outputs, whichever leaves less output error.",
          .source = "Heo et al. 2023, arXiv 2309.15531",
          .needs_calibration = true,
          .contract = rounding({}, StorageUse::none),
          .knobs = {}};
}

std::unique_ptr<Method> make_adadim(const StageSpec&) { return std::make_unique<AdaDim>(); }

}  // namespace qb
