#include "core/method/reconstruction/gptq.h"

#include <fmt/format.h>

#include "core/method/reconstruction/rtn.h"

namespace qb {
namespace {

class Gptq final : public Method {
 public:
  Gptq(const GptqOptions& options, const RefineOptions& refine, bool sequential) : options_(options), refine_(refine), sequential_(sequential) {}

  Statistics needs() const override {
    return static_cast<Statistics>(Statistic::gram) | (sequential_ ? static_cast<Statistics>(Statistic::again) : 0);
  }

  void apply(BlockWork& work) override {
    ValueId input = -1;
    Shared shared;
    bool first = true;
    for (size_t i = 0; i < work.linears.size(); ++i) {
      LinearWork& linear = work.linears[i];
      if (!linear.spec) continue;
      work.begin(linear);
      if (linear.info.input != input) {
        input = linear.info.input;
        if (sequential_ && !first && work.collect_again) refresh(work, input);
        shared = {};
        shared.gram = work.gram_of(linear);
        first = false;
      }
      const bool last = i + 1 == work.linears.size() || work.linears[i + 1].info.input != input;
      round(work, linear, shared, last);
    }
  }

 private:
  // What linears that read one value have in common.
  struct Shared {
    at::Tensor gram;  // undefined: no token reached it
    std::map<int64_t, std::optional<GptqFactor>> factors;  // by group size
  };

  // A value's Gram matrix given what has been quantized before it.
  static void refresh(BlockWork& work, ValueId value) {
    use_current_weights(work);
    ValueStatistics fresh = work.collect_again(value, static_cast<Statistics>(Statistic::gram));
    if (fresh.gram.defined()) work.statistics[value].gram = fresh.gram;
  }

  void round(BlockWork& work, LinearWork& linear, Shared& shared, bool last) const {
    const int64_t group = linear.spec->granularity == Granularity::group ? grid_width(*linear.spec, linear.info.in_features) : 0;
    if (!shared.gram.defined()) {
      linear.tell("no calibration token reached it: rounded to nearest");
    } else {
      auto [factor, fresh] = shared.factors.try_emplace(group);
      if (fresh) factor->second = gptq_factor(shared.gram, options_, group);
      if (factor->second) {
        GptqResult result = gptq(linear.weight, *factor->second, *linear.spec, linear.range, linear.kept, options_, work.control);
        if (factor->second->attempts > 1) linear.tell(fmt::format("the Gram matrix needed a damping of {:g}", factor->second->damping));
        if (last) shared.factors.clear();  // as large as the Gram matrix, which refining takes
        refine(result.weight, linear.weight, shared.gram, linear.kept, refine_, work.control);
        linear.quantized = std::move(result.weight);
        return;
      }
      linear.tell("the Gram matrix is not positive definite, whatever the damping: rounded to nearest");
    }
    round_to_nearest(work, linear);
  }

  GptqOptions options_;
  RefineOptions refine_;
  bool sequential_;
};

}  // namespace

MethodInfo gptq_info() {
  return {.name = "gptq",
          .title = "GPTQ",
          .kind = MethodClass::reconstruction,
          .help = "Rounds column by column and makes up for each error in the columns still to come, by the inverse of the inputs' Gram matrix.",
          .source = "Frantar et al. 2022, arXiv 2210.17323",
          .needs_calibration = true,
          .contract = rounding(),
          .knobs = {
              {"actorder", "Activation order", KnobType::boolean, true, 0, 0, {}, "", "columns with large inputs first", "GPTQ"},
              {"static_groups", "Static groups", KnobType::boolean, true, 0, 0, {}, "", "scales of all groups before the first update; else when a group's turn comes, whole groups in order", "GPTQ"},
              {"percdamp", "Damping", KnobType::real, 0.01, 0, 10, {}, "", "added to the diagonal, as a share of its mean", "GPTQ"},
              {"shrinkage", "Shrinkage", KnobType::real, 0.0, 0, 1, {}, "", "share by which correlations between inputs count less, since the quantized model's inputs carry errors of their own; 1: rounds to nearest", "this program"},
              {"blocksize", "Block size", KnobType::integer, int64_t{128}, 1, 4096, {}, "columns", "columns whose errors reach the rest in one product", "GPTQ"},
              {"sweeps", "Sweeps", KnobType::integer, int64_t{0}, 0, 100, {}, "", "rounds over all columns after the last, each column anew given all others (coordinate descent)", "QuantEase, arXiv 2309.01885"},
              {"fit_scales", "Fit scales", KnobType::boolean, false, 0, 0, {}, "", "before each sweep, every group's scale by least squares on the output error; of a file format's type also minima and super-blocks", "this program"},
              {"true_sequential", "True sequential", KnobType::boolean, false, 0, 0, {}, "", "collect inputs anew after the linears before them are quantized", "GPTQ"},
          }};
}

GptqOptions gptq_options(const StageSpec& stage) {
  return {.act_order = knob<bool>(stage, "actorder"),
          .static_groups = knob<bool>(stage, "static_groups"),
          .damping = knob<double>(stage, "percdamp"),
          .shrinkage = knob<double>(stage, "shrinkage"),
          .block_size = knob<int64_t>(stage, "blocksize")};
}

RefineOptions refine_options(const StageSpec& stage) { return {.sweeps = knob<int64_t>(stage, "sweeps"), .scales = knob<bool>(stage, "fit_scales"), .shrinkage = knob<double>(stage, "shrinkage")}; }

std::unique_ptr<Method> make_gptq(const StageSpec& stage) {
  return std::make_unique<Gptq>(gptq_options(stage), refine_options(stage), knob<bool>(stage, "true_sequential"));
}

}  // namespace qb
