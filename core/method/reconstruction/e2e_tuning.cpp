#include "core/method/reconstruction/e2e_tuning.h"

#include "core/method/model_change.h"

namespace qb {

MethodInfo e2e_tuning_info() {
  return {.name = "e2e_tuning",
          .title = "End-to-end tuning",
          .kind = MethodClass::reconstruction,
          .help = "After all blocks: scales and norms learn together, so that the model's predictions come near the float model's; of storage types minima and super-blocks too. Codes stay.",
          .source = "Chen et al. 2024, arXiv 2407.11062 (second phase)",
          .needs_calibration = true,
          .contract = {.place = Place::finished, .needs = Trace::codes, .keeps = Traces(Trace::transforms) | Trace::scaled | Trace::zeros | Trace::codes, .leaves = Trace::tuned, .storage = StorageUse::scales},
          .knobs = {
              {"epochs", "Epochs", KnobType::integer, int64_t{2}, 1, 1000, {}, "epochs", "times that every calibration sample is seen", "this program"},
              {"lr", "Learning rate", KnobType::real, 2e-3, 0, 1, {}, "", "Adam's step, relative to each scale, falling to zero along a cosine", "this program"},
              {"samples", "Samples", KnobType::integer, int64_t{0}, 0, 1000000000, {}, "samples", "calibration samples that it learns from, the first ones; 0: all", "this program", "all samples"},
              {"batch_tokens", "Tokens per step", KnobType::integer, int64_t{1024}, 1, 1048576, {}, "tokens", "calibration tokens a step (at least one sample)", "this program"},
              {"norms", "Learn norms", KnobType::boolean, true, 0, 0, {}, "", "learn the norms' weights too", "this program"},
          }};
}

TuningOptions tuning_options(const StageSpec& stage) {
  return {.epochs = knob<int64_t>(stage, "epochs"),
          .samples = knob<int64_t>(stage, "samples"),
          .batch_tokens = knob<int64_t>(stage, "batch_tokens"),
          .rate = knob<double>(stage, "lr"),
          .norms = knob<bool>(stage, "norms")};
}

double tuning_passes(const TuningOptions& options, int64_t samples) {
  const double share = options.samples > 0 && options.samples < samples ? static_cast<double>(options.samples) / static_cast<double>(samples) : 1;
  return (1 + 4 * static_cast<double>(options.epochs)) * share;
}

// Its work begins where the blocks' ends: core/engine/model_tuning.
std::unique_ptr<Method> make_e2e_tuning(const StageSpec&) { return make_outside_blocks(); }

}  // namespace qb
