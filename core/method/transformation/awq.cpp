#include "core/method/transformation/awq.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/method/guided.h"
#include "core/method/transformation/module_output.h"
#include "core/method/transformation/scale_group.h"
#include "core/quant/rounding_error.h"
#include "core/quant/units.h"

namespace qb {
namespace {

struct Knobs {
  bool v2, gram, module, norms, linears, grouped_queries;
  int64_t grid, rows, samples;
  bool guided;
};

// A reader of the group as the search sees it.
struct Reader {
  at::Tensor weight;      // [rows, in]
  QuantSpec spec;
  std::optional<QuantSpec> activations;
  const ValueStatistics* statistics;
  double share;           // all output rows / searched rows
  std::vector<RowGram> grams;  // over the searched rows
  at::Tensor outputs;          // what an error of each counts; undefined: all alike
};

class Awq final : public Method {
 public:
  explicit Awq(const Knobs& knobs) : knobs_(knobs) {}
  Statistics needs() const override {
    return static_cast<Statistics>(Statistic::mean_abs) | (knobs_.gram ? gram_statistic(knobs_.guided) : static_cast<Statistics>(Statistic::rows)) |
           (knobs_.module ? static_cast<Statistics>(Statistic::block_io) : 0);
  }

  bool chooses() const override { return true; }

  void apply(BlockWork& work) override {
    const std::vector<ScaleGroup> groups = scale_groups(work);
    for (size_t g = 0; g < groups.size(); ++g) {
      const ScaleGroup& group = groups[g];
      const bool norm = group.producer == ScaleGroup::Producer::norm;
      if (norm ? !knobs_.norms : !knobs_.linears) continue;
      if (group.shared_rows && !norm && !knobs_.grouped_queries) continue;
      work.begin(work.linears[group.linears.front()]);
      const at::Tensor scale = work.choose(fmt::format("scale of group {}", g), [&] { return search(work, group); });
      if (scale.defined()) apply_scale(work, group, scale);
    }
  }

 private:
  at::Tensor search(BlockWork& work, const ScaleGroup& group) const {
    std::vector<Reader> readers;
    at::Tensor mean, importance;
    double tokens = 0;
    for (size_t i : group.linears) {
      const LinearWork& linear = work.linears[i];
      const auto it = work.statistics.find(linear.info.input);
      if (!linear.spec || it == work.statistics.end() || it->second.tokens == 0) continue;
      readers.push_back(reader(work, linear, it->second));
      if (!knobs_.v2) {
        const at::Tensor columns = weight_importance(linear);
        importance = importance.defined() ? importance + columns : columns;
      }
    }
    for (const ValueId value : group.values) {
      const auto it = work.statistics.find(value);
      if (it == work.statistics.end() || it->second.tokens == 0) continue;
      const auto count = static_cast<double>(it->second.tokens);
      const at::Tensor sum = it->second.mean_abs * count;
      mean = mean.defined() ? mean + sum : sum;
      tokens += count;
    }
    if (readers.empty() || !mean.defined()) return {};
    mean = mean / tokens;
    if (importance.defined()) importance = importance / static_cast<double>(readers.size());
    // Behind a linear there is one reader, which is a module by itself.
    std::optional<ModuleOutput> module;
    if (knobs_.module && group.producer == ScaleGroup::Producer::norm) {
      use_current_weights(work);
      module.emplace(work, group, knobs_.samples);
    }
    at::Tensor best;
    double least = std::numeric_limits<double>::infinity();
    for (int64_t step = 0; step < knobs_.grid; ++step) {
      work.control.checkpoint();
      const double ratio = static_cast<double>(step) / static_cast<double>(knobs_.grid);
      const at::Tensor scale = feasible(group, candidate(mean, importance, ratio));
      const double loss = module ? module->error(scale) : error(readers, scale, least);
      if (loss < least) {
        least = loss;
        best = step == 0 && knobs_.v2 ? at::Tensor() : scale;  // ratio 0 of v2 leaves everything as it is
      }
    }
    return best;
  }

  // Of all readers; stops adding up when it is above a bound.
  double error(const std::vector<Reader>& readers, const at::Tensor& scale, double bound) const {
    double loss = 0;
    for (const Reader& r : readers) {
      loss += error(r, scale);
      if (loss >= bound) break;
    }
    return loss;
  }

  Reader reader(const BlockWork& work, const LinearWork& linear, const ValueStatistics& statistics) const {
    const int64_t out = linear.info.out_features;
    Reader r{linear.weight, *linear.spec, linear.activations, &statistics, 1, row_grams(work, linear, knobs_.guided), output_weight(linear, knobs_.guided)};
    const bool free_rows = r.spec.granularity == Granularity::group || r.spec.granularity == Granularity::channel;
    if (knobs_.rows > 0 && out > knobs_.rows && free_rows) {
      // Rows are rounded independently: an even sample of them ranks the candidates as all of them would.
      const at::Tensor chosen = at::linspace(0, static_cast<double>(out - 1), knobs_.rows, at::kDouble).round_().to(at::kLong);
      r.weight = linear.weight.index_select(0, chosen.to(linear.weight.device()));
      if (r.outputs.defined()) r.outputs = r.outputs.index_select(0, chosen.to(r.outputs.device()));
      for (RowGram& g : r.grams) {  // rows are in order
        g.first = (chosen < g.first).sum().item<int64_t>();
        g.last = (chosen < g.last).sum().item<int64_t>();
      }
      r.share = static_cast<double>(out) / static_cast<double>(knobs_.rows);
    }
    return r;
  }

  // Mean over output rows of |W| relative to the largest of its quantization unit, [in].
  static at::Tensor weight_importance(const LinearWork& linear) {
    const at::Tensor size = to_units(linear.weight.abs(), *linear.spec);
    const at::Tensor relative = size / size.amax(1, true).clamp_min(1e-12);
    return from_units(relative, *linear.spec, linear.weight.size(0), linear.weight.size(1)).mean(0);
  }

  at::Tensor candidate(const at::Tensor& mean, const at::Tensor& importance, double ratio) const {
    at::Tensor scale = mean.clamp_min(1e-8).pow(ratio);
    if (!knobs_.v2) scale = scale / importance.clamp_min(1e-8).pow(1 - ratio);
    scale = scale.clamp_min(1e-4);
    return scale / (scale.max() * scale.min()).sqrt();
  }

  // Output error of a reader with these scales: tr(ΔW·G·ΔWᵀ), or on the sampled rows with quantized inputs.
  double error(const Reader& r, const at::Tensor& scale) const {
    const at::Tensor scaled = r.weight * scale;
    const ScaleZero grid = find_grid(scaled, r.spec);
    at::Tensor difference = rounding_error(scaled, r.spec, grid);
    if (knobs_.gram && !r.activations) {
      difference.div_(scale);
      const at::Tensor products = row_products(difference, r.grams);
      if (!r.outputs.defined()) return r.share * products.sum(at::kDouble).item<double>();
      return r.share * products.sum(1, false, at::kDouble).dot(r.outputs.to(at::kDouble)).item<double>();
    }
    const at::Tensor x = r.statistics->rows.to(at::kFloat) / scale;
    const at::Tensor seen = r.activations ? fake_quantize(x, *r.activations) : x;
    const at::Tensor off = seen.matmul(difference.add_(scaled).t()).sub_(x.matmul(scaled.t()));
    return r.share * off.square().sum(at::kDouble).item<double>() * static_cast<double>(r.statistics->tokens) / static_cast<double>(std::max<int64_t>(1, x.size(0)));
  }

  Knobs knobs_;
};

}  // namespace

MethodInfo awq_info() {
  MethodInfo info{.name = "awq",
          .title = "AWQ scaling",
          .kind = MethodClass::transformation,
          .help = "Searches a power of the mean input size of each channel to scale the weights by, where a norm or a linear before can take the inverse in.",
          .source = "Lin et al. 2023, arXiv 2306.00978",
          .needs_calibration = true,
          .contract = {.keeps = Traces(Trace::transforms) | Trace::scaled | Trace::zeros, .leaves = Trace::scaled},
          .knobs = {
              {"trans_version", "Scale formula", KnobType::choice, std::string("v2"), 0, 0, {"v1", "v2"}, "", "v2: scale = mean|x|^r; v1: that over the weights' importance^(1−r)", "LLMC"},
              {"grid", "Grid steps", KnobType::integer, int64_t{20}, 2, 1000, {}, "steps", "exponents r = 0, 1/grid, … tried", "AWQ"},
              {"objective", "Objective", KnobType::choice, std::string("gram"), 0, 0, {"gram", "rows", "module"}, "", "error of the linears' outputs from the Gram matrix of all tokens, or on sampled rows; or of the output of the attention or MLP that they are in, which is run for it (of the block, where it has experts or both share a norm)", "this program; AWQ: module"},
              {"rows", "Rows searched", KnobType::integer, int64_t{128}, 0, 1000000, {}, "rows", "output rows of each linear that the search looks at; 0: all", "this program", "all rows"},
              {"samples", "Samples of modules", KnobType::integer, int64_t{32}, 0, 1000000, {}, "samples", "objective module: calibration samples that modules are run on; 0: all", "this program", "all samples"},
              {"norms", "Scale after norms", KnobType::boolean, true, 0, 0, {}, "", "scale inputs that a norm makes", "AWQ"},
              {"linears", "Scale between linears", KnobType::boolean, true, 0, 0, {}, "", "scale inputs that a linear makes (v→o, up→down)", "AWQ"},
              {"do_gqa_trans", "Shared value heads too", KnobType::boolean, true, 0, 0, {}, "", "v→o also where several query heads share a value head", "LLMC"},
          }};
  add_guided_knobs(info);
  info.problem = [](const StageSpec& stage) -> std::string {
    const auto objective = knob<std::string>(stage, "objective");
    return guided_wish(stage) && objective != "gram" ? fmt::format("statistics: guided ones are Gram matrices, which objective: {} does not look at; expected objective: gram", objective) : "";
  };
  return info;
}

std::unique_ptr<Method> make_awq(const StageSpec& stage) {
  const auto objective = knob<std::string>(stage, "objective");
  return std::make_unique<Awq>(Knobs{.v2 = knob<std::string>(stage, "trans_version") == "v2",
                                     .gram = objective != "rows",
                                     .module = objective == "module",
                                     .norms = knob<bool>(stage, "norms"),
                                     .linears = knob<bool>(stage, "linears"),
                                     .grouped_queries = knob<bool>(stage, "do_gqa_trans"),
                                     .grid = knob<int64_t>(stage, "grid"),
                                     .rows = knob<int64_t>(stage, "rows"),
                                     .samples = knob<int64_t>(stage, "samples"),
                                     .guided = guided_wish(stage).has_value()});
}

}  // namespace qb
