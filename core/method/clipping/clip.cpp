#include "core/method/clipping/clip.h"

#include <algorithm>

#include "core/method/groups.h"
#include "core/method/guided.h"
#include "core/quant/rounding_error.h"
#include "core/quant/units.h"

namespace qb {
namespace {

struct Knobs {
  int64_t grid;
  double shrink;
  bool queries, independent;
  std::string symmetry;
  bool guided;
};

// What a linear's errors count.
struct Weights {
  std::vector<RowGram> grams;
  at::Tensor outputs;     // [out]; undefined: all alike
  at::Tensor importance;  // [in], of all rows
};

class Clip final : public Method {
 public:
  explicit Clip(const Knobs& knobs) : knobs_(knobs) {}
  Statistics needs() const override { return gram_statistic(knobs_.guided); }
  bool chooses() const override { return true; }

  void apply(BlockWork& work) override {
    for (size_t i = 0; i < work.linears.size(); ++i) {
      LinearWork& linear = work.linears[i];
      if (!linear.spec) continue;
      if (!knobs_.queries && makes_scores(work.decoder.graph(work.block.index), static_cast<int>(i))) continue;
      work.begin(linear);
      Weights weights{row_grams(work, linear, knobs_.guided), output_weight(linear, knobs_.guided), {}};
      if (weights.grams.empty()) continue;
      weights.importance = joint_gram(weights.grams, linear).diagonal();
      const at::Tensor ends = work.choose("range of " + linear.info.name, [&] {
        const Range found = search(linear.weight, *linear.spec, weights, work.control);
        return at::stack({found.low, found.high});
      });
      linear.range = Range{ends[0], ends[1]};
    }
  }

 private:
  Range search(const at::Tensor& weight, const QuantSpec& spec, const Weights& weights, const Control& control) const {
    const bool storage = spec.storage != Storage::none;
    const Range whole = starting_range(weight, spec, control, {weights.importance, {}});
    // A storage type's range has a longer side where its codes reach further.
    const bool symmetric = !storage && (knobs_.symmetry == "scheme" ? spec.symmetric : knobs_.symmetry == "symmetric");
    at::Tensor low = whole.low, high = whole.high;
    if (symmetric) {
      high = at::maximum(low.abs(), high.abs());
      low = -high;
    }
    const auto steps = static_cast<int64_t>(static_cast<double>(knobs_.grid) * knobs_.shrink);
    Range best{low, high};
    at::Tensor least;
    auto consider = [&](const Range& range) {
      const at::Tensor loss = errors(weight, spec, range, weights, control);
      if (!least.defined()) {
        least = loss;
        best = range;
        return;
      }
      const at::Tensor better = loss < least;
      least = at::where(better, loss, least);
      best = {at::where(better, range.low, best.low), at::where(better, range.high, best.high)};
    };
    auto keep = [&](int64_t step) { return 1.0 - static_cast<double>(step) / static_cast<double>(knobs_.grid); };
    for (int64_t i = 0; i < std::max<int64_t>(1, steps); ++i) consider({low * keep(i), high * keep(i)});
    if (!knobs_.independent || symmetric || (storage && spec.symmetric)) return best;
    // Each end by itself, from the best common shrinkage.
    for (const bool lower : {true, false}) {
      const Range start = best;
      for (int64_t i = 0; i < std::max<int64_t>(1, steps); ++i) consider(lower ? Range{low * keep(i), start.high} : Range{start.low, high * keep(i)});
    }
    return best;
  }

  // In slices of rows, where rows have units of their own: what comes of them stays small, and in the caches where groups allow.
  static at::Tensor errors(const at::Tensor& weight, const QuantSpec& spec, const Range& range, const Weights& weights, const Control& control) {
    const int64_t out = weight.size(0), in = weight.size(1);
    const bool groups = spec.granularity == Granularity::group;
    if (!groups && spec.granularity != Granularity::channel) {
      control.checkpoint();
      at::Tensor rows = row_products(rounding_error(weight, spec, scale_zero(range, spec)), weights.grams);
      if (weights.outputs.defined()) rows.mul_(weights.outputs.unsqueeze(1));
      return unit_grid(to_units(rows, spec).sum(1), spec, out, in);
    }
    // What an output counts says nothing here: a unit is of one.
    const int64_t step = std::max<int64_t>(64, (int64_t{1} << (groups ? 20 : 24)) / in);
    std::vector<at::Tensor> slices;
    for (const RowGram& g : weights.grams)
      for (int64_t begin = g.first; begin < g.last; begin += step) {
        control.checkpoint();
        const int64_t end = std::min(begin + step, g.last);
        const Range own{range.low.slice(0, begin, end), range.high.slice(0, begin, end)};
        const at::Tensor difference = rounding_error(weight.slice(0, begin, end), spec, scale_zero(own, spec));
        slices.push_back(groups ? group_errors(difference, g.gram, spec.group_size) : difference.matmul(g.gram).mul_(difference).sum(1, true));
      }
    return at::cat(slices);
  }

  Knobs knobs_;
};

}  // namespace

MethodInfo clip_info() {
  MethodInfo info{.name = "clip",
          .title = "Clipping search",
          .kind = MethodClass::clipping,
          .help = "Shrinks the range of each group as far as the output error on its own inputs falls.",
          .source = "Lin et al. 2023, arXiv 2306.00978; asymmetric: LLM-QBench, arXiv 2405.06001",
          .needs_calibration = true,
          .contract = {.keeps = Traces(Trace::transforms) | Trace::scaled | Trace::zeros, .leaves = Trace::range},
          .knobs = {
              {"n_grid", "Grid steps", KnobType::integer, int64_t{20}, 2, 1000, {}, "steps", "steps that the whole range is divided into", "AWQ"},
              {"max_shrink", "Largest shrink", KnobType::real, 0.5, 0.01, 0.99, {}, "", "largest share of the range that is cut off", "AWQ"},
              {"clip_sym", "Symmetry", KnobType::choice, std::string("scheme"), 0, 0, {"scheme", "symmetric", "asymmetric"}, "", "whether both ends move alike around zero", "LLMC"},
              {"independent", "Ends independent", KnobType::boolean, false, 0, 0, {}, "", "asymmetric: then search each end by itself", "this program"},
              {"queries", "Queries and keys too", KnobType::boolean, false, 0, 0, {}, "", "clip query and key weights as well", "AWQ leaves them"},
          }};
  add_guided_knobs(info);
  return info;
}

std::unique_ptr<Method> make_clip(const StageSpec& stage) {
  return std::make_unique<Clip>(Knobs{.grid = knob<int64_t>(stage, "n_grid"),
                                      .shrink = knob<double>(stage, "max_shrink"),
                                      .queries = knob<bool>(stage, "queries"),
                                      .independent = knob<bool>(stage, "independent"),
                                      .symmetry = knob<std::string>(stage, "clip_sym"),
                                      .guided = guided_wish(stage).has_value()});
}

}  // namespace qb
