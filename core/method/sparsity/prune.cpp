#include "core/method/sparsity/prune.h"

#include <fmt/format.h>

#include <charconv>

namespace qb {
namespace {

struct Pattern {
  double sparsity;
  int64_t n, m;  // 0: unstructured
};

class Prune final : public Method {
 public:
  Prune(const Pattern& pattern, bool wanda) : pattern_(pattern), wanda_(wanda) {}
  Statistics needs() const override { return wanda_ ? static_cast<Statistics>(Statistic::sum_squares) : 0; }

  std::string problem(const LinearInfo& linear, const std::optional<QuantSpec>&) const override {
    if (pattern_.m == 0 || linear.in_features % pattern_.m == 0) return {};
    return fmt::format("pattern {}:{} needs in_features that {} divides, found {}", pattern_.n, pattern_.m, pattern_.m, linear.in_features);
  }

  void apply(BlockWork& work) override {
    for (LinearWork& linear : work.linears) {
      work.begin(linear);
      at::Tensor importance = linear.weight.abs();
      if (wanda_) {
        const auto it = work.statistics.find(linear.info.input);
        if (it == work.statistics.end() || !it->second.sum_squares.defined()) {
          linear.tell("no calibration token reached it: pruned by magnitude");
        } else {
          importance = importance * it->second.sum_squares.sqrt();
        }
      }
      const at::Tensor kept = kept_weights(importance, pattern_.sparsity, wanda_, pattern_.n, pattern_.m);
      linear.kept = linear.kept.defined() ? linear.kept.logical_and(kept) : kept;
      linear.weight = linear.weight * linear.kept;
    }
  }

 private:
  Pattern pattern_;
  bool wanda_;
};

constexpr Contract kPrunes{.keeps = Traces(Trace::transforms) | Trace::scaled | Trace::range | Trace::zeros, .leaves = Trace::zeros};

std::vector<KnobInfo> knobs() {
  return {
      {"sparsity", "Sparsity", KnobType::real, 0.5, 0, 0.99, {}, "", "share of the weights set to zero", "Wanda"},
      {"pattern", "Pattern", KnobType::choice, std::string("unstructured"), 0, 0, {"unstructured", "2:4", "4:8", "1:4", "2:8"}, "", "n:m keeps the n largest of every m in a row", "Wanda"},
  };
}

Pattern pattern_of(const StageSpec& stage) {
  Pattern pattern{.sparsity = knob<double>(stage, "sparsity"), .n = 0, .m = 0};
  const auto text = knob<std::string>(stage, "pattern");
  if (const size_t colon = text.find(':'); colon != std::string::npos) {
    pattern.n = std::stoll(text.substr(0, colon));
    pattern.m = std::stoll(text.substr(colon + 1));
  }
  return pattern;
}

}  // namespace

at::Tensor kept_weights(const at::Tensor& importance, double sparsity, bool by_row, int64_t n, int64_t m) {
  const int64_t out = importance.size(0), in = importance.size(1);
  const at::Tensor rows = m > 0 ? importance.reshape({out * in / m, m}) : by_row ? importance : importance.reshape({1, out * in});
  const auto dropped = m > 0 ? m - n : static_cast<int64_t>(static_cast<double>(rows.size(1)) * sparsity);
  at::Tensor kept = at::ones_like(rows, rows.options().dtype(at::kBool));
  if (dropped > 0) kept.scatter_(1, at::argsort(rows, /*stable=*/true, 1, /*descending=*/false).slice(1, 0, dropped), 0);
  return kept.reshape({out, in});
}

MethodInfo magnitude_info() {
  return {.name = "magnitude",
          .title = "Magnitude pruning",
          .kind = MethodClass::sparsity,
          .help = "Sets the smallest weights of each linear to zero.",
          .source = "Han et al. 2015, arXiv 1506.02626",
          .needs_calibration = false,
          .contract = kPrunes,
          .knobs = knobs()};
}

MethodInfo wanda_info() {
  return {.name = "wanda",
          .title = "Wanda pruning",
          .kind = MethodClass::sparsity,
          .help = "Sets to zero, in each output row, the weights of least |w|·‖x‖.",
          .source = "Sun et al. 2023, arXiv 2306.11695",
          .needs_calibration = true,
          .contract = kPrunes,
          .knobs = knobs()};
}

std::unique_ptr<Method> make_magnitude(const StageSpec& stage) { return std::make_unique<Prune>(pattern_of(stage), false); }
std::unique_ptr<Method> make_wanda(const StageSpec& stage) { return std::make_unique<Prune>(pattern_of(stage), true); }

}  // namespace qb
