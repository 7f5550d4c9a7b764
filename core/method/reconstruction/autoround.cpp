#include "core/method/reconstruction/autoround.h"

#include <ATen/core/grad_mode.h>

#include <limits>

#include "core/method/reconstruction/block_learning.h"
#include "core/quant/units.h"

namespace qb {
namespace {

struct Knobs {
  int64_t iterations, batch;
  double rate, range_rate;
  bool ranges, float_path;
};

class AutoRound final : public Method {
 public:
  explicit AutoRound(const Knobs& knobs) : knobs_(knobs) {}
  Statistics needs() const override {
    return static_cast<Statistics>(Statistic::block_io) | (knobs_.float_path ? static_cast<Statistics>(Statistic::float_path) : 0);
  }
  std::string problem(const LinearInfo&, const std::optional<QuantSpec>& spec) const override { return learned_rounding_problem(spec); }

  void apply(BlockWork& work) override {
    use_current_weights(work);
    std::vector<size_t> which;
    std::vector<LearnedRounding> roundings;
    std::vector<at::Tensor> learned;  // per linear: shift, then low and high share
    {
      const at::NoGradGuard no_grad;
      for (size_t i = 0; i < work.linears.size(); ++i) {
        if (!work.linears[i].spec) continue;
        LearnedRounding r = learned_rounding(work.linears[i]);
        r.shift = at::zeros_like(to_units(r.weight, r.spec));
        which.push_back(i);
        roundings.push_back(std::move(r));
      }
    }
    for (LearnedRounding& r : roundings)
      for (at::Tensor* t : {&r.shift, &r.low_share, &r.high_share}) learned.push_back(t->requires_grad_(knobs_.ranges || t == &r.shift));
    if (roundings.empty()) return;
    {
      const WeightsAside aside(work.block);
      learn(work, which, roundings, learned);
    }
    for (size_t k = 0; k < which.size(); ++k) work.linears[which[k]].quantized = roundings[k].quantized();
  }

 private:
  void learn(BlockWork& work, const std::vector<size_t>& which, std::vector<LearnedRounding>& roundings, std::vector<at::Tensor>& learned) const {
    BlockLearning learning(work);
    const double rate = knobs_.rate > 0 ? knobs_.rate : 1.0 / static_cast<double>(std::max<int64_t>(1, knobs_.iterations));
    const double range_rate = knobs_.range_rate > 0 ? knobs_.range_rate : rate;
    double least = std::numeric_limits<double>::infinity();
    std::vector<at::Tensor> best;
    for (int64_t step = 0; step < knobs_.iterations; ++step) {
      work.begin(work.linears[which[static_cast<size_t>(step) % which.size()]]);
      {
        at::AutoGradMode gradients(true);
        for (size_t k = 0; k < which.size(); ++k) work.block.linears[which[k]].weight = roundings[k].value().to(work.decoder.weight_dtype());
        const at::Tensor loss = learning.loss(knobs_.batch, knobs_.float_path);
        if (const double value = loss.item<double>(); value < least) {
          least = value;
          const at::NoGradGuard no_grad;
          best.clear();
          for (const at::Tensor& t : learned) best.push_back(t.detach().clone());
        }
        loss.backward();
      }
      const at::NoGradGuard no_grad;
      const double decay = 1 - static_cast<double>(step) / static_cast<double>(knobs_.iterations);
      for (size_t k = 0; k < learned.size(); ++k) {
        at::Tensor& t = learned[k];
        if (!t.grad().defined()) continue;
        const bool shift = k % 3 == 0;
        t.sub_(t.grad().sign(), (shift ? rate : range_rate) * decay);
        shift ? t.clamp_(-0.5, 0.5) : t.clamp_(0, 1);
        t.mutable_grad().reset();
      }
    }
    const at::NoGradGuard no_grad;
    for (size_t k = 0; k < best.size(); ++k) learned[k].copy_(best[k]);
    for (at::Tensor& t : learned) t.detach_();
  }

  Knobs knobs_;
};

}  // namespace

MethodInfo autoround_info() {
  return {.name = "autoround",
          .title = "AutoRound",
          .kind = MethodClass::reconstruction,
          .help = "Learns each weight's rounding direction and each group's range by signed gradients of the block's output error.",
          .source = "Cheng et al. 2023, arXiv 2309.05516",
          .needs_calibration = true,
          .contract = rounding({}, StorageUse::even),
          .knobs = {
              {"iters", "Iterations", KnobType::integer, int64_t{200}, 1, 100000, {}, "steps", "gradient steps a block", "AutoRound"},
              {"batch_size", "Batch size", KnobType::integer, int64_t{8}, 1, 1024, {}, "samples", "calibration samples a step", "AutoRound"},
              {"lr", "Rounding learning rate", KnobType::real, 0.0, 0, 1, {}, "", "step of the rounding shift, falling to zero; 0: 1/iters", "AutoRound"},
              {"minmax_lr", "Range learning rate", KnobType::real, 0.0, 0, 1, {}, "", "step of the ranges; 0: as lr", "AutoRound"},
              {"enable_minmax_tuning", "Learn ranges", KnobType::boolean, true, 0, 0, {}, "", "learn the ranges too", "AutoRound"},
              {"float_targets", "Float targets", KnobType::boolean, true, 0, 0, {}, "", "aim at the float model's own hidden states; else at the float block's output on this run's inputs", "AutoRound"},
          }};
}

std::unique_ptr<Method> make_autoround(const StageSpec& stage) {
  return std::make_unique<AutoRound>(Knobs{.iterations = knob<int64_t>(stage, "iters"),
                                           .batch = knob<int64_t>(stage, "batch_size"),
                                           .rate = knob<double>(stage, "lr"),
                                           .range_rate = knob<double>(stage, "minmax_lr"),
                                           .ranges = knob<bool>(stage, "enable_minmax_tuning"),
                                           .float_path = knob<bool>(stage, "float_targets")});
}

}  // namespace qb
