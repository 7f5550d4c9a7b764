#include "core/method/reconstruction/gptq.h"

#include <fmt/format.h>

#include "core/method/guided.h"
#include "core/method/reconstruction/rtn.h"

namespace qb {
namespace {

class Gptq final : public Method {
 public:
  Gptq(const GptqOptions& options, const RefineOptions& refine, bool sequential, bool guided) : options_(options), refine_(refine), sequential_(sequential), guided_(guided) {}

  Statistics needs() const override {
    return gram_statistic(guided_) | (sequential_ ? static_cast<Statistics>(Statistic::again) : 0);
  }

  void apply(BlockWork& work) override {
    ValueId input = -1;
    Shared shared;
    bool first = true;
    for (size_t i = 0; i < work.linears.size(); ++i) {
      LinearWork& linear = work.linears[i];
      if (!linear.spec) continue;
      work.begin(linear);
      const bool fresh = linear.info.input != input;
      if (fresh) {
        input = linear.info.input;
        if (sequential_ && !first && work.collect_again) refresh(work, input);
        first = false;
      }
      if (fresh || guided_) shared = {};  // guided ones are each linear's own
      const bool last = guided_ || i + 1 == work.linears.size() || work.linears[i + 1].info.input != input;
      round(work, linear, shared, last);
    }
  }

 private:
  // What linears that read one value have in common: factors of its Gram matrix, by group size.
  using Shared = std::map<int64_t, std::optional<GptqFactor>>;

  // A value's Gram matrices given what has been quantized before it.
  void refresh(BlockWork& work, ValueId value) const {
    use_current_weights(work);
    ValueStatistics fresh = work.collect_again(value, gram_statistic(guided_));
    if (fresh.gram.defined()) work.statistics[value].gram = fresh.gram;
    if (!fresh.guided.empty()) work.statistics[value].guided = std::move(fresh.guided);
  }

  void round(BlockWork& work, LinearWork& linear, Shared& shared, bool last) const {
    const QuantSpec& spec = *linear.spec;
    const int64_t group = spec.granularity == Granularity::group ? grid_width(spec, linear.info.in_features) : 0;
    std::vector<RowGram> grams = row_grams(work, linear, guided_);
    if (grams.empty()) {
      linear.tell("no calibration token reached it: rounded to nearest");
      return round_to_nearest(work, linear);
    }
    // Rows that share a grid are rounded together.
    if (grams.size() > 1 && !rows_are_free(spec)) grams = {{0, linear.info.out_features, joint_gram(grams, linear)}};
    std::vector<QuantizedWeight> parts;
    double damping = 0;
    for (const RowGram& g : grams) {
      auto [factor, fresh] = shared.try_emplace(group);
      if (fresh || grams.size() > 1) factor->second = gptq_factor(g.gram, options_, group);
      if (!factor->second) {
        linear.tell("the Gram matrix is not positive definite, whatever the damping: rounded to nearest");
        return round_to_nearest(work, linear);
      }
      const bool all = grams.size() == 1;
      auto rows = [&](const at::Tensor& t) { return all || !t.defined() ? t : t.slice(0, g.first, g.last); };
      const at::Tensor weight = rows(linear.weight), kept = rows(linear.kept);
      const auto range = linear.range ? std::optional<Range>{{rows(linear.range->low), rows(linear.range->high)}} : std::nullopt;
      GptqResult result = gptq(weight, *factor->second, spec, range, kept, options_, work.control);
      if (factor->second->attempts > 1) damping = std::max(damping, factor->second->damping);
      if (last && all) shared.clear();  // as large as the Gram matrix, which refining takes
      refine(result.weight, weight, g.gram, kept, refine_, work.control);
      parts.push_back(std::move(result.weight));
    }
    if (damping > 0) linear.tell(fmt::format("the Gram matrix needed a damping of {:g}", damping));
    linear.quantized = joined(std::move(parts));
  }

  static bool rows_are_free(const QuantSpec& spec) {
    return (spec.granularity == Granularity::group || spec.granularity == Granularity::channel) && spec.storage != Storage::nvfp4;
  }

  // Rows below each other.
  static QuantizedWeight joined(std::vector<QuantizedWeight> parts) {
    if (parts.size() == 1) return std::move(parts.front());
    QuantizedWeight whole = parts.front();
    auto rows = [&](auto part) {
      if (!part(parts.front()).defined()) return at::Tensor();
      std::vector<at::Tensor> all;
      for (QuantizedWeight& p : parts) all.push_back(part(p));
      return at::cat(all);
    };
    whole.codes = rows([](QuantizedWeight& p) { return p.codes; });
    for (at::Tensor ScaleZero::*member : {&ScaleZero::scale, &ScaleZero::zero, &ScaleZero::minimum, &ScaleZero::super, &ScaleZero::super_minimum})
      whole.grid.*member = rows([member](QuantizedWeight& p) { return p.grid.*member; });
    return whole;
  }

  GptqOptions options_;
  RefineOptions refine_;
  bool sequential_;
  bool guided_;
};

}  // namespace

MethodInfo gptq_info() {
  MethodInfo info{.name = "gptq",
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
  add_guided_knobs(info);
  return info;
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
  return std::make_unique<Gptq>(gptq_options(stage), refine_options(stage), knob<bool>(stage, "true_sequential"), guided_wish(stage).has_value());
}

}  // namespace qb
