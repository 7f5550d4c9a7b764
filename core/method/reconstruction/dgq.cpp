#include "core/method/reconstruction/dgq.h"

#include "core/method/groups.h"
#include "core/quant/rounding_error.h"

namespace qb {
namespace {

constexpr double kByte = 127;

class Dgq final : public Method {
 public:
  Dgq(int64_t channel_steps, int64_t group_steps) : channel_steps_(channel_steps), group_steps_(group_steps) {}
  Statistics needs() const override { return static_cast<Statistics>(Statistic::gram); }
  std::string problem(const LinearInfo&, const std::optional<QuantSpec>& spec) const override { return integer_groups_problem(spec, "dgq"); }

  void apply(BlockWork& work) override {
    for (LinearWork& linear : work.linears) {
      if (!linear.spec) continue;
      work.begin(linear);
      linear.quantized = solve(linear, work.gram_of(linear), work.control);
    }
  }

 private:
  // Group scale = channel scale · integer in [1, 127], so that an INT8 kernel sees (code − zero)·integer.
  QuantizedWeight solve(const LinearWork& linear, const at::Tensor& gram, const Control& control) const {
    const at::Tensor& weight = linear.weight;
    QuantSpec spec = *linear.spec;
    spec.scale_type = ScaleType::f32;  // a product; its storage is counted below
    const int64_t out = weight.size(0), in = weight.size(1), g = spec.group_size;
    const auto [qmin, qmax] = code_bounds(spec);
    const double steps = spec.symmetric ? qmax : qmax - qmin;
    const Range whole = linear.range ? *linear.range : min_max(weight, spec);
    // Loss of every group, [out, groups].
    auto loss = [&](const ScaleZero& grid) {
      const at::Tensor d = rounding_error(weight, spec, grid);
      return gram.defined() ? group_errors(d, gram, g) : d.view({out, in / g, g}).square().sum(2);
    };
    at::Tensor best_channel, best_scale, best_zero;
    for (int64_t c = 0; c < channel_steps_; ++c) {
      // The first level: what 8 bits of the channel reach.
      const double reach = 1 - 0.5 * static_cast<double>(c) / static_cast<double>(channel_steps_);
      const at::Tensor channel = stored_scale(weight.abs().amax(1, true) * reach / kByte, ScaleType::f16);
      at::Tensor least, scale, zero;
      for (int64_t s = 0; s < group_steps_; ++s) {
        control.checkpoint();
        const double keep = 1 - 0.8 * static_cast<double>(s) / static_cast<double>(group_steps_);
        const at::Tensor low = (whole.low * keep).clamp_max(0), high = (whole.high * keep).clamp_min(0);
        const at::Tensor extent = spec.symmetric ? at::maximum(-low, high) : high - low;
        ScaleZero grid{(extent / steps / channel).round().clamp(1, kByte) * channel, {}};
        if (!spec.symmetric) grid.zero = (qmin - low / grid.scale).round().clamp(qmin, qmax);
        const at::Tensor now = loss(grid);
        if (!least.defined()) {
          least = now, scale = grid.scale, zero = grid.zero;
          continue;
        }
        const at::Tensor better = now < least;
        least = at::where(better, now, least);
        scale = at::where(better, grid.scale, scale);
        if (zero.defined()) zero = at::where(better, grid.zero, zero);
      }
      const at::Tensor total = least.sum(1, true);
      if (!best_channel.defined()) {
        best_channel = total, best_scale = scale, best_zero = zero;
        continue;
      }
      const at::Tensor better = total < best_channel;
      best_channel = at::where(better, total, best_channel);
      best_scale = at::where(better, scale, best_scale);
      if (best_zero.defined()) best_zero = at::where(better, zero, best_zero);
    }
    QuantizedWeight result = quantize(weight, spec, {best_scale, best_zero});
    result.grid_bits = (8.0 + (spec.symmetric ? 0 : spec.type.bits)) / static_cast<double>(g) + 16.0 / static_cast<double>(in);
    return result;
  }

  int64_t channel_steps_, group_steps_;
};

}  // namespace

MethodInfo dgq_info() {
  return {.name = "dgq",
          .title = "DGQ",
          .kind = MethodClass::reconstruction,
          .help = "Searches two levels of scales: a float16 one a channel, and integers for the groups in it, as INT8 kernels can use them.",
          .source = "Zhang et al. 2023, arXiv 2310.04836",
          .needs_calibration = true,
          .contract = rounding(Trace::grid, StorageUse::none),
          .knobs = {
              {"channel_steps", "Channel grid steps", KnobType::integer, int64_t{20}, 1, 1000, {}, "steps", "channel scales tried", "DGQ"},
              {"group_steps", "Group grid steps", KnobType::integer, int64_t{20}, 1, 1000, {}, "steps", "group scales tried for each; its authors try 80", "this program"},
          }};
}

std::unique_ptr<Method> make_dgq(const StageSpec& stage) {
  return std::make_unique<Dgq>(knob<int64_t>(stage, "channel_steps"), knob<int64_t>(stage, "group_steps"));
}

}  // namespace qb
