#include "core/method/reconstruction/tesseraq.h"

#include <ATen/core/grad_mode.h>
#include <torch/optim/adam.h>

#include <cmath>

#include "core/method/reconstruction/block_learning.h"
#include "core/quant/units.h"

namespace qb {
namespace {

struct Knobs {
  double rate, scale_rate;
  int64_t iterations, rounds, batch;
  bool scales, float_path;
};

// Rounding up or down of every weight of a linear: codes = floor(w/s) + σ(v), harder with every round.
struct SoftCodes {
  size_t index = 0;
  QuantSpec spec;
  ScaleZero grid;                 // as it starts
  at::Tensor floor, scale, zero;  // units; zero undefined: symmetric
  at::Tensor v;                   // [units, elements], learned
  at::Tensor hard;                // bool: v has been decided
  at::Tensor decided;             // 0 or 1 where hard
  at::Tensor stretch;             // [units, 1], learned: the scale is multiplied by 2σ(stretch)
  int64_t out = 0, in = 0;

  at::Tensor value() const {
    const auto [qmin, qmax] = code_bounds(spec);
    const at::Tensor up = at::where(hard, decided, at::sigmoid(v));
    at::Tensor codes = (floor + up).clamp(qmin, qmax);
    if (zero.defined()) codes = codes - zero;
    return from_units(codes * (scale * 2 * at::sigmoid(stretch)), spec, out, in);
  }
};

class TesseraQ final : public Method {
 public:
  explicit TesseraQ(const Knobs& knobs) : knobs_(knobs) {}
  Statistics needs() const override {
    return static_cast<Statistics>(Statistic::block_io) | (knobs_.float_path ? static_cast<Statistics>(Statistic::float_path) : 0);
  }
  std::string problem(const LinearInfo&, const std::optional<QuantSpec>& spec) const override { return learned_rounding_problem(spec); }

  void apply(BlockWork& work) override {
    use_current_weights(work);
    std::vector<SoftCodes> soft;
    for (size_t i = 0; i < work.linears.size(); ++i)
      if (work.linears[i].spec) soft.push_back(start(work.linears[i], i));
    if (soft.empty()) return;
    {
      const WeightsAside aside(work.block);
      learn(work, soft);
    }
    for (SoftCodes& s : soft) finish(work.linears[s.index], s);
  }

 private:
  static SoftCodes start(const LinearWork& linear, size_t index) {
    SoftCodes s;
    s.index = index;
    s.spec = *linear.spec;
    s.out = linear.weight.size(0);
    s.in = linear.weight.size(1);
    s.grid = linear.range ? scale_zero(*linear.range, s.spec) : find_grid(linear.weight, s.spec);
    s.scale = unit_column(s.grid.scale);
    if (s.grid.zero.defined()) s.zero = unit_column(s.grid.zero);
    at::Tensor x = to_units(linear.weight, s.spec) / s.scale;
    if (s.zero.defined()) x = x + s.zero;
    s.floor = x.floor();
    s.v = (x - s.floor).clamp(1e-3, 1 - 1e-3).logit().requires_grad_(true);
    // Pruned weights are decided: floor(0/s + z) is their code.
    s.hard = linear.kept.defined() ? to_units(linear.kept, s.spec).logical_not() : at::zeros_like(x, x.options().dtype(at::kBool));
    s.decided = at::zeros_like(x);
    s.stretch = at::zeros_like(s.scale).requires_grad_(true);
    return s;
  }

  void learn(BlockWork& work, std::vector<SoftCodes>& soft) const {
    BlockLearning learning(work);
    for (int64_t round = 0; round < knobs_.rounds; ++round) {
      std::vector<at::Tensor> codes, stretches;
      for (SoftCodes& s : soft) {
        codes.push_back(s.v);
        // Of a storage type only the grid that it started on can be held.
        if (s.spec.storage == Storage::none) stretches.push_back(s.stretch);
      }
      std::vector<torch::optim::OptimizerParamGroup> groups;
      groups.emplace_back(codes, std::make_unique<torch::optim::AdamOptions>(knobs_.rate));
      if (knobs_.scales && !stretches.empty()) groups.emplace_back(stretches, std::make_unique<torch::optim::AdamOptions>(knobs_.scale_rate));
      torch::optim::Adam optimizer(groups);
      for (int64_t step = 0; step < knobs_.iterations; ++step) {
        work.begin(work.linears[soft[static_cast<size_t>(step) % soft.size()].index]);
        at::AutoGradMode gradients(true);
        optimizer.zero_grad();
        for (const SoftCodes& s : soft) work.block.linears[s.index].weight = s.value().to(work.decoder.weight_dtype());
        learning.loss(knobs_.batch, knobs_.float_path).backward();
        optimizer.step();
      }
      // A share that falls geometrically stays soft; the last round decides all.
      const double stays = round + 1 == knobs_.rounds ? 0 : std::pow(0.6, static_cast<double>(round + 1));
      for (SoftCodes& s : soft) harden(s, stays);
    }
  }

  static void harden(SoftCodes& s, double stays) {
    const at::NoGradGuard no_grad;
    const at::Tensor doubt = (at::sigmoid(s.v) - 0.5).abs().view({-1});
    const auto count = static_cast<int64_t>(stays * static_cast<double>(doubt.numel()));
    at::Tensor fresh = at::ones_like(s.hard);
    if (count > 0) {
      const at::Tensor open = at::where(s.hard.view({-1}), at::full_like(doubt, 2), doubt);
      const at::Tensor soft = std::get<1>(at::topk(open, count, 0, /*largest=*/false));
      fresh.view({-1}).index_fill_(0, soft, 0);
    }
    fresh = fresh.logical_and(s.hard.logical_not());
    s.decided = at::where(fresh, (s.v > 0).to(at::kFloat), s.decided);
    s.hard = s.hard.logical_or(fresh);
  }

  static void finish(LinearWork& linear, const SoftCodes& s) {
    const at::NoGradGuard no_grad;
    const auto [qmin, qmax] = code_bounds(s.spec);
    const at::Tensor codes = from_units((s.floor + s.decided).clamp(qmin, qmax).to(at::kChar), s.spec, s.out, s.in);
    if (s.spec.storage != Storage::none) {
      linear.quantized = QuantizedWeight{s.spec, codes, s.grid};
      return;
    }
    const at::Tensor scale = stored_scale(s.scale * 2 * at::sigmoid(s.stretch.detach()), s.spec.scale_type);
    ScaleZero grid{unit_grid(scale, s.spec, s.out, s.in), {}};
    if (s.zero.defined()) grid.zero = unit_grid(s.zero, s.spec, s.out, s.in);
    linear.quantized = QuantizedWeight{s.spec, codes, grid};
  }

  Knobs knobs_;
};

}  // namespace

MethodInfo tesseraq_info() {
  return {.name = "tesseraq",
          .title = "TesseraQ",
          .kind = MethodClass::reconstruction,
          .help = "Learns the rounding direction of every weight on the block's output, deciding the surest first, and the scales; starts from searched ranges.",
          .source = "Li & Panda 2024, arXiv 2410.19103",
          .needs_calibration = true,
          .contract = rounding({}, StorageUse::even),
          .knobs = {
              {"lr", "Rounding learning rate", KnobType::real, 5e-4, 0, 1, {}, "", "Adam's step of the roundings", "LLMC"},
              {"scale_lr", "Scale learning rate", KnobType::real, 5e-4, 0, 1, {}, "", "Adam's step of the scales", "LLMC"},
              {"iterations", "Iterations", KnobType::integer, int64_t{250}, 1, 100000, {}, "steps", "before each hardening", "LLMC"},
              {"rounds", "Hardening rounds", KnobType::integer, int64_t{10}, 1, 100, {}, "rounds", "hardenings; each leaves 0.6 of the weights soft that were", "LLMC has ten thresholds"},
              {"batch_size", "Batch size", KnobType::integer, int64_t{2}, 1, 1024, {}, "samples", "calibration samples a step", "LLMC"},
              {"optimize_scale", "Learn scales", KnobType::boolean, true, 0, 0, {}, "", "learn scales too", "TesseraQ"},
              {"float_targets", "Float targets", KnobType::boolean, true, 0, 0, {}, "", "aim at the float model's own hidden states", "LLMC"},
          }};
}

std::unique_ptr<Method> make_tesseraq(const StageSpec& stage) {
  return std::make_unique<TesseraQ>(Knobs{.rate = knob<double>(stage, "lr"),
                                          .scale_rate = knob<double>(stage, "scale_lr"),
                                          .iterations = knob<int64_t>(stage, "iterations"),
                                          .rounds = knob<int64_t>(stage, "rounds"),
                                          .batch = knob<int64_t>(stage, "batch_size"),
                                          .scales = knob<bool>(stage, "optimize_scale"),
                                          .float_path = knob<bool>(stage, "float_targets")});
}

}  // namespace qb
