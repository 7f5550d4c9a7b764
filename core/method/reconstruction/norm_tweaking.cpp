#include "core/method/reconstruction/norm_tweaking.h"

#include <ATen/core/grad_mode.h>
#include <torch/optim/adam.h>

#include "core/method/reconstruction/block_learning.h"

namespace qb {
namespace {

struct Knobs {
  double rate, gamma;
  int64_t epochs, batch;
  bool float_path;
};

class NormTweaking final : public Method {
 public:
  explicit NormTweaking(const Knobs& knobs) : knobs_(knobs) {}
  Statistics needs() const override {
    return static_cast<Statistics>(Statistic::block_io) | (knobs_.float_path ? static_cast<Statistics>(Statistic::float_path) : 0);
  }

  void apply(BlockWork& work) override {
    use_current_weights(work);
    std::vector<std::string> norms;
    for (const NormTensor& norm : norm_tensors(work.block, work.decoder.graph(work.block.index))) norms.push_back(norm.name);
    if (norms.empty()) return;
    BlockLearning learning(work);
    const double before = learning.full_loss(knobs_.float_path);
    std::map<std::string, at::Tensor> originals;
    std::vector<at::Tensor> learned;
    for (const std::string& name : norms) {
      originals[name] = work.block.others.at(name);
      learned.push_back(originals[name].detach().to(at::kFloat, false, true).requires_grad_(true));
      work.block.others[name] = learned.back();
    }
    const double depth = static_cast<double>(work.block.index) / static_cast<double>(std::max(1, work.decoder.blocks()));
    torch::optim::Adam optimizer(learned, torch::optim::AdamOptions(knobs_.rate * (1 + knobs_.gamma * depth)));
    const int64_t steps = knobs_.epochs * learning.steps_an_epoch(knobs_.batch);
    for (int64_t step = 0; step < steps; ++step) {
      work.control.checkpoint();
      at::AutoGradMode gradients(true);
      optimizer.zero_grad();
      learning.loss(knobs_.batch, knobs_.float_path).backward();
      optimizer.step();
    }
    for (size_t i = 0; i < norms.size(); ++i) {
      const at::NoGradGuard no_grad;
      at::Tensor& stored = work.block.others[norms[i]];
      stored = learned[i].detach().to(work.decoder.dtype()).to(originals[norms[i]].scalar_type());
    }
    // Norms rounded to the checkpoint's dtype may undo a small gain.
    if (!(learning.full_loss(knobs_.float_path) < before))
      for (const auto& [name, tensor] : originals) work.block.others[name] = tensor;
  }

 private:
  Knobs knobs_;
};

}  // namespace

MethodInfo norm_tweaking_info() {
  return {.name = "norm_tweaking",
          .title = "Norm Tweaking",
          .kind = MethodClass::reconstruction,
          .help = "Learns the norms' weights on the block's output after the linears are rounded.",
          .source = "Li et al. 2023, arXiv 2309.02784",
          .needs_calibration = true,
          .contract = {.needs = Trace::codes, .keeps = Traces(Trace::transforms) | Trace::scaled | Trace::zeros | Trace::codes | Trace::grid},
          .knobs = {
              {"ntweak_lr", "Learning rate", KnobType::real, 1e-5, 0, 1, {}, "", "Adam's step in the first block", "Norm Tweaking"},
              {"gamma", "Growth with depth", KnobType::real, 0.001, 0, 100, {}, "", "growth of the step with depth: lr·(1 + gamma·i/N)", "LLMC"},
              {"epochs", "Epochs", KnobType::integer, int64_t{10}, 1, 10000, {}, "epochs", "times that every sample is seen", "LLMC uses 50"},
              {"batch_size", "Batch size", KnobType::integer, int64_t{1}, 1, 1024, {}, "samples", "calibration samples a step", "this program"},
              {"float_targets", "Float targets", KnobType::boolean, true, 0, 0, {}, "", "aim at the float model's own hidden states", "Norm Tweaking"},
          }};
}

std::unique_ptr<Method> make_norm_tweaking(const StageSpec& stage) {
  return std::make_unique<NormTweaking>(Knobs{.rate = knob<double>(stage, "ntweak_lr"),
                                              .gamma = knob<double>(stage, "gamma"),
                                              .epochs = knob<int64_t>(stage, "epochs"),
                                              .batch = knob<int64_t>(stage, "batch_size"),
                                              .float_path = knob<bool>(stage, "float_targets")});
}

}  // namespace qb
