#include "core/method/transformation/os_plus.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "core/method/transformation/scale_group.h"
#include "core/quant/rounding_error.h"

namespace qb {
namespace {

class OsPlus final : public Method {
 public:
  OsPlus(bool shift, int64_t steps) : shift_(shift), steps_(steps) {}
  Statistics needs() const override {
    return static_cast<Statistics>(Statistic::rows) | static_cast<Statistics>(Statistic::abs_max) |
           (shift_ ? static_cast<Statistics>(Statistic::again) : 0);
  }

  bool chooses() const override { return true; }

  void apply(BlockWork& work) override {
    const std::vector<ScaleGroup> groups = scale_groups(work);
    for (size_t g = 0; g < groups.size(); ++g) {
      const ScaleGroup& group = groups[g];
      if (group.producer != ScaleGroup::Producer::norm) continue;
      work.begin(work.linears[group.linears.front()]);
      at::Tensor rows = rows_of(work, group);
      if (!rows.defined()) continue;
      if (shift_ && can_shift(work, group)) {
        apply_shift(work, group, (rows.amax(0) + rows.amin(0)) / 2);
        rows = rows_of(work, group);
      }
      const at::Tensor scale = work.choose(fmt::format("scale of group {}", g), [&] { return search(work, group, rows); });
      if (scale.defined()) apply_scale(work, group, scale);
    }
  }

 private:
  static at::Tensor rows_of(const BlockWork& work, const ScaleGroup& group) {
    std::vector<at::Tensor> all;
    for (const ValueId value : group.values)
      if (const auto it = work.statistics.find(value); it != work.statistics.end() && it->second.rows.defined() && it->second.rows.size(0) > 0)
        all.push_back(it->second.rows.to(at::kFloat));
    return all.empty() ? at::Tensor() : at::cat(all);
  }

  // The threshold t of least output error: channels whose largest value is above t are divided down to it.
  at::Tensor search(const BlockWork& work, const ScaleGroup& group, const at::Tensor& rows) const {
    const at::Tensor peaks = rows.abs().amax(0);
    const double top = peaks.max().item<double>();
    if (!(top > 0)) return {};
    double least = std::numeric_limits<double>::infinity();
    at::Tensor best;
    for (int64_t step = 0; step < steps_; ++step) {
      work.control.checkpoint();
      const double threshold = top * (1 - static_cast<double>(step) / static_cast<double>(steps_));
      const at::Tensor scale = (peaks / threshold).clamp_min(1);
      double loss = 0;
      for (size_t i : group.linears) {
        const LinearWork& linear = work.linears[i];
        const at::Tensor weight = linear.weight * scale, x = rows / scale;
        const at::Tensor rounded = linear.spec ? weight + rounding_error(weight, *linear.spec, find_grid(weight, *linear.spec)) : weight;
        const at::Tensor seen = linear.activations ? fake_quantize(x, *linear.activations) : x;
        loss += (seen.matmul(rounded.t()) - rows.matmul(linear.weight.t())).square_().sum(at::kDouble).item<double>();
        if (loss >= least) break;
      }
      if (loss < least) {
        least = loss;
        best = scale;
      }
    }
    return best;
  }

  bool shift_;
  int64_t steps_;
};

}  // namespace

MethodInfo os_plus_info() {
  return {.name = "os_plus",
          .title = "Outlier Suppression+",
          .kind = MethodClass::transformation,
          .help = "Shifts channels to their centre where biases allow it, and divides those beyond a searched threshold down to it.",
          .source = "Wei et al. 2023, arXiv 2304.09145",
          .needs_calibration = true,
          .contract = {.keeps = Traces(Trace::transforms) | Trace::scaled | Trace::zeros, .leaves = Trace::scaled},
          .knobs = {
              {"use_shift", "Shift channels", KnobType::boolean, true, 0, 0, {}, "", "shift where norm and linears have biases", "OS+"},
              {"steps", "Grid steps", KnobType::integer, int64_t{100}, 2, 10000, {}, "steps", "thresholds tried between the largest value and zero", "OS+"},
          }};
}

std::unique_ptr<Method> make_os_plus(const StageSpec& stage) {
  return std::make_unique<OsPlus>(knob<bool>(stage, "use_shift"), knob<int64_t>(stage, "steps"));
}

}  // namespace qb
