#include "core/method/reconstruction/omniquant.h"

#include <ATen/core/grad_mode.h>
#include <torch/optim/adamw.h>

#include <algorithm>
#include <cmath>

#include "core/method/reconstruction/block_learning.h"
#include "core/method/transformation/scale_group.h"
#include "core/quant/units.h"

namespace qb {
namespace {

struct Knobs {
  bool clip, scale, aug_loss;
  double clip_rate, scale_rate, decay, alpha;
  int64_t epochs, batch;
};

// A scaling that is learned: log s, so that s stays positive.
struct LearnedScale {
  ScaleGroup group;
  at::Tensor log_scale;
};

class OmniQuant final : public Method {
 public:
  explicit OmniQuant(const Knobs& knobs) : knobs_(knobs) {}
  Statistics needs() const override {
    return static_cast<Statistics>(Statistic::block_io) | static_cast<Statistics>(Statistic::float_path) |
           (knobs_.scale ? static_cast<Statistics>(Statistic::abs_max) : 0);
  }
  std::string problem(const LinearInfo&, const std::optional<QuantSpec>& spec) const override { return learned_rounding_problem(spec); }

  void apply(BlockWork& work) override {
    use_current_weights(work);
    std::vector<LearnedScale> scales;
    if (knobs_.scale) scales = start_scales(work);
    std::vector<LearnedRounding> roundings(work.linears.size());
    std::vector<at::Tensor> factors;  // LWC's logits
    std::vector<std::pair<at::Tensor, at::Tensor>> logits(work.linears.size());
    for (size_t i = 0; i < work.linears.size(); ++i) {
      if (!work.linears[i].spec) continue;
      roundings[i] = learned_rounding(work.linears[i]);
      if (!knobs_.clip) continue;
      // OmniQuant starts at sigmoid(4), which at 8 bits would cut off five steps: half a step at most. A searched range starts at its own share.
      const NumberType& type = roundings[i].spec.type;
      const double whole = type.kind == NumberType::Kind::integer ? std::max(0.982, 1 - 0.5 / (std::exp2(type.bits) - 1)) : 0.982;
      auto logit = [whole](const at::Tensor& share) { return share.clamp(0.02, whole).logit().requires_grad_(true); };
      logits[i] = {logit(roundings[i].low_share), logit(roundings[i].high_share)};
      factors.push_back(logits[i].first);
      factors.push_back(logits[i].second);
    }
    {
      const WeightsAside aside(work.block);
      learn(work, roundings, logits, factors, scales);
    }
    if (!scales.empty())
      for (LinearWork& linear : work.linears) linear.range.reset();  // it has become the learned shares
    for (const LearnedScale& s : scales) apply_scale(work, s.group, s.log_scale.detach().exp());
    for (size_t i = 0; i < work.linears.size(); ++i) {
      LinearWork& linear = work.linears[i];
      if (!linear.spec) continue;
      LearnedRounding r = learned_rounding(linear);
      r.low_share = roundings[i].low_share;
      r.high_share = roundings[i].high_share;
      if (knobs_.clip) {
        r.low_share = at::sigmoid(logits[i].first.detach());
        r.high_share = at::sigmoid(logits[i].second.detach());
      }
      linear.quantized = r.quantized();
    }
  }

 private:
  std::vector<LearnedScale> start_scales(const BlockWork& work) const {
    std::vector<LearnedScale> scales;
    for (const ScaleGroup& group : scale_groups(work)) {
      if (!group.routers.empty() || group.values.size() != 1) continue;  // experts share their input with the router
      const auto it = work.statistics.find(group.values.front());
      if (it == work.statistics.end() || !it->second.abs_max.defined()) continue;
      at::Tensor weights;
      for (size_t i : group.linears) {
        const at::Tensor peak = work.linears[i].weight.abs().amax(0);
        weights = weights.defined() ? at::maximum(weights, peak) : peak;
      }
      at::Tensor start = at::ones_like(weights);
      // Between linears the original starts at one.
      if (group.producer == ScaleGroup::Producer::norm)
        start = it->second.abs_max.clamp_min(1e-5).pow(knobs_.alpha) / weights.clamp_min(1e-5).pow(1 - knobs_.alpha);
      scales.push_back({group, feasible(group, start).log().requires_grad_(true)});
    }
    return scales;
  }

  void learn(BlockWork& work, std::vector<LearnedRounding>& roundings, const std::vector<std::pair<at::Tensor, at::Tensor>>& logits,
             const std::vector<at::Tensor>& factors, const std::vector<LearnedScale>& scales) const {
    if (factors.empty() && scales.empty()) return;
    std::vector<torch::optim::OptimizerParamGroup> groups;
    auto add = [&](std::vector<at::Tensor> parameters, double rate) {
      if (parameters.empty()) return;
      auto options = std::make_unique<torch::optim::AdamWOptions>(rate);
      options->weight_decay(knobs_.decay);
      groups.emplace_back(std::move(parameters), std::move(options));
    };
    std::vector<at::Tensor> logs;
    for (const LearnedScale& s : scales) logs.push_back(s.log_scale);
    add(factors, knobs_.clip_rate);
    add(logs, knobs_.scale_rate);
    torch::optim::AdamW optimizer(groups);
    BlockLearning learning(work);
    const Block loaded = work.block;
    const int64_t steps = knobs_.epochs * learning.steps_an_epoch(knobs_.batch);
    for (int64_t step = 0; step < steps; ++step) {
      work.begin(work.linears[static_cast<size_t>(step) % work.linears.size()]);
      at::AutoGradMode gradients(true);
      optimizer.zero_grad();
      place(work, loaded, roundings, logits, scales);
      at::Tensor loss = learning.loss(knobs_.batch, true);
      if (knobs_.aug_loss) loss = loss + learning.loss(knobs_.batch, false);
      loss.backward();
      optimizer.step();
    }
  }

  // Puts the weights that the present scales and clippings make into the block, with gradients.
  void place(BlockWork& work, const Block& loaded, std::vector<LearnedRounding>& roundings,
             const std::vector<std::pair<at::Tensor, at::Tensor>>& logits, const std::vector<LearnedScale>& scales) const {
    std::vector<at::Tensor> weights;
    for (const LinearWork& linear : work.linears) weights.push_back(linear.weight);
    work.block.others = loaded.others;
    for (const LearnedScale& s : scales) {
      const at::Tensor factor = tied(s.group, s.log_scale).exp(), rows = by_row(s.group, factor);
      for (size_t i : s.group.linears) weights[i] = weights[i] * factor;
      if (s.group.producer == ScaleGroup::Producer::norm) {
        at::Tensor& norm = work.block.others.at(s.group.norm + ".weight");
        norm = s.group.plus_one ? (norm.to(at::kFloat) + 1) / rows - 1 : norm.to(at::kFloat) / rows;
        if (const auto bias = work.block.others.find(s.group.norm + ".bias"); bias != work.block.others.end()) bias->second = bias->second.to(at::kFloat) / rows;
      } else {
        weights[s.group.linear] = weights[s.group.linear] / rows.unsqueeze(1);
        const at::Tensor& bias = loaded.linears[s.group.linear].bias;
        if (bias.defined()) work.block.linears[s.group.linear].bias = bias.to(at::kFloat) / rows;
      }
    }
    for (size_t i = 0; i < work.linears.size(); ++i) {
      at::Tensor value = weights[i];
      if (work.linears[i].spec) {
        LearnedRounding& r = roundings[i];
        r.weight = weights[i];
        if (!scales.empty()) {  // the range follows the scaled weights
          if (r.spec.storage != Storage::none) {
            const Range range = starting_range(weights[i].detach(), r.spec, work.control);
            r.low = unit_column(range.low);
            r.high = unit_column(range.high);
          } else {
            const at::Tensor units = to_units(weights[i], r.spec);
            r.low = units.amin(1, true);
            r.high = units.amax(1, true);
          }
        }
        if (knobs_.clip) {
          r.low_share = at::sigmoid(logits[i].first);
          r.high_share = at::sigmoid(logits[i].second);
        }
        value = r.value();
      }
      work.block.linears[i].weight = value.to(work.decoder.weight_dtype());
    }
  }

  Knobs knobs_;
};

}  // namespace

MethodInfo omniquant_info() {
  return {.name = "omniquant",
          .title = "OmniQuant",
          .kind = MethodClass::reconstruction,
          .help = "Learns clipping, and scalings between norms and linears, on the block's output; starts from what earlier stages searched.",
          .source = "Shao et al. 2023, arXiv 2308.13137",
          .needs_calibration = true,
          .contract = rounding({}, StorageUse::even),
          .knobs = {
              {"lwc", "Learn clipping", KnobType::boolean, true, 0, 0, {}, "", "learn clipping", "OmniQuant"},
              {"let", "Learn scalings", KnobType::boolean, false, 0, 0, {}, "", "learn scalings; its authors leave it off for weights only", "OmniQuant"},
              {"lwc_lr", "Clipping learning rate", KnobType::real, 0.01, 0, 1, {}, "", "step of the clipping factors", "OmniQuant"},
              {"let_lr", "Scaling learning rate", KnobType::real, 0.005, 0, 1, {}, "", "step of the scalings; its authors take 0.001 for W4A4", "OmniQuant"},
              {"alpha", "SmoothQuant exponent", KnobType::real, 0.5, 0, 1, {}, "", "SmoothQuant's exponent, where scalings start", "OmniQuant"},
              {"epochs", "Epochs", KnobType::integer, int64_t{5}, 1, 1000, {}, "epochs", "20 from scratch (40 at 2 bits), 5 from searched values", "LLMC"},
              {"wd", "Weight decay", KnobType::real, 0.0, 0, 1, {}, "", "weight decay", "OmniQuant"},
              {"aug_loss", "Augmented loss", KnobType::boolean, false, 0, 0, {}, "", "add the error against the float block on this run's inputs", "OmniQuant"},
              {"batch_size", "Batch size", KnobType::integer, int64_t{1}, 1, 1024, {}, "samples", "calibration samples a step", "this program"},
          }};
}

std::unique_ptr<Method> make_omniquant(const StageSpec& stage) {
  return std::make_unique<OmniQuant>(Knobs{.clip = knob<bool>(stage, "lwc"),
                                           .scale = knob<bool>(stage, "let"),
                                           .aug_loss = knob<bool>(stage, "aug_loss"),
                                           .clip_rate = knob<double>(stage, "lwc_lr"),
                                           .scale_rate = knob<double>(stage, "let_lr"),
                                           .decay = knob<double>(stage, "wd"),
                                           .alpha = knob<double>(stage, "alpha"),
                                           .epochs = knob<int64_t>(stage, "epochs"),
                                           .batch = knob<int64_t>(stage, "batch_size")});
}

}  // namespace qb
