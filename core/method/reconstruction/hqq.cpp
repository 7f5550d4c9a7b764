#include "core/method/reconstruction/hqq.h"

namespace qb {
namespace {

class Hqq final : public Method {
 public:
  Hqq(double norm, double beta, double kappa, int64_t iterations) : norm_(norm), beta_(beta), kappa_(kappa), iterations_(iterations) {}

  std::string problem(const LinearInfo& linear, const std::optional<QuantSpec>& spec) const override {
    return spec ? misfit(with_knobs(*spec), linear.out_features, linear.in_features) : std::string();
  }

  void apply(BlockWork& work) override {
    for (LinearWork& linear : work.linears) {
      if (!linear.spec) continue;
      work.begin(linear);
      QuantSpec spec = with_knobs(*linear.spec);
      spec.round_zero_point = linear.kept.defined() && spec.storage == Storage::none;  // else what it optimises would be rounded away
      if (linear.kept.defined()) linear.tell("zero points are codes, so that pruned weights stay zero");
      const Range range = linear.range ? *linear.range : min_max(linear.weight, spec);
      linear.quantized = quantize(linear.weight, spec, hqq_grid(linear.weight, spec, range, work.control));
    }
  }

 private:
  QuantSpec with_knobs(QuantSpec spec) const {
    spec.range = RangeMethod::hqq;
    spec.hqq_norm = norm_;
    spec.hqq_beta = beta_;
    spec.hqq_kappa = kappa_;
    spec.hqq_iterations = iterations_;
    return spec;
  }

  double norm_, beta_, kappa_;
  int64_t iterations_;
};

}  // namespace

MethodInfo hqq_info() {
  const QuantSpec defaults;
  return {.name = "hqq",
          .title = "HQQ",
          .kind = MethodClass::reconstruction,
          .help = "Chooses zero points by half-quadratic splitting of a sparse error norm. Needs no calibration.",
          .source = "Badri & Shaji 2023, \"Half-Quadratic Quantization of Large Machine Learning Models\"",
          .needs_calibration = false,
          .contract = rounding({}, StorageUse::minimum),
          .knobs = {
              {"lp_norm", "Norm of the error", KnobType::real, defaults.hqq_norm, 0.05, 1, {}, "", "norm of the error", "HQQ"},
              {"beta", "Splitting weight", KnobType::real, defaults.hqq_beta, 1e-6, 1e6, {}, "", "weight of the splitting", "HQQ"},
              {"kappa", "Growth of the splitting weight", KnobType::real, defaults.hqq_kappa, 1, 100, {}, "", "growth of beta a step", "HQQ"},
              {"iters", "Iterations", KnobType::integer, defaults.hqq_iterations, 0, 1000, {}, "steps", "alternations between error and zero points", "HQQ"},
          }};
}

std::unique_ptr<Method> make_hqq(const StageSpec& stage) {
  return std::make_unique<Hqq>(knob<double>(stage, "lp_norm"), knob<double>(stage, "beta"), knob<double>(stage, "kappa"),
                               knob<int64_t>(stage, "iters"));
}

}  // namespace qb
