// Random factors through every scale group of every block: rescale_blocks MODEL
// Prints per block: groups, largest difference of the block's output relative to its largest value, and the largest
// relative difference between statistics that followed and statistics collected anew.
#include <ATen/core/grad_mode.h>

#include <iostream>

#include "core/base/error.h"
#include "core/engine/collector.h"
#include "core/method/transformation/scale_group.h"

namespace {

double difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>() / std::max(1e-12, b.abs().max().item<double>());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  const at::NoGradGuard no_grad;
  at::manual_seed(7);
  try {
    auto model = qb::Model::open(argv[1]);
    qb::Decoder decoder(model, model->source, at::kFloat);
    const qb::Control control;
    using qb::Statistic;
    const auto wanted = static_cast<qb::Statistics>(Statistic::gram) | static_cast<qb::Statistics>(Statistic::abs_max) |
                        static_cast<qb::Statistics>(Statistic::mean_abs) | static_cast<qb::Statistics>(Statistic::sum_squares);
    for (int b = 0; b < decoder.blocks(); ++b) {
      qb::Block block = decoder.load_block(b);
      qb::BlockWork work{block, {}, {}, decoder, 0, control, {}};
      for (const qb::Linear& linear : block.linears) {
        qb::LinearWork one;
        one.info = linear.info;
        one.original = one.reference = one.weight = linear.weight.to(at::kFloat);
        work.linears.push_back(one);
      }
      // Random hidden states, and keys and values of earlier blocks where they come with them; the tokens' numbers are numbers.
      const at::Tensor hidden = decoder.embed(at::randint(model->architecture.vocabulary, {2, 40}, at::kLong));
      const int64_t streams = model->architecture.hidden_width(), rest = hidden.size(2) - streams - qb::kTokenDigits;
      hidden.narrow(2, 0, streams).normal_();
      if (rest > 0) hidden.narrow(2, streams + qb::kTokenDigits, rest).normal_();
      auto collect = [&](at::Tensor& out) {
        qb::Collector collector(wanted, 8, 80);
        out = decoder.forward(block, hidden, {.at_value = collector.tap(control)});
        return collector.take();
      };
      at::Tensor before, after;
      work.statistics = collect(before);
      const auto groups = qb::scale_groups(work);
      for (const qb::ScaleGroup& group : groups) {
        const int64_t in = work.linears[group.linears.front()].info.in_features;
        qb::apply_scale(work, group, (0.5 * at::randn({in})).exp());
      }
      qb::use_current_weights(work);
      auto fresh = collect(after);
      double off = 0;
      for (auto& [value, s] : fresh)
        for (auto [followed, anew] : {std::pair{work.statistics[value].gram, s.gram}, {work.statistics[value].abs_max, s.abs_max},
                                      {work.statistics[value].mean_abs, s.mean_abs}, {work.statistics[value].sum_squares, s.sum_squares}})
          off = std::max(off, difference(followed, anew));
      std::cout << b << " " << groups.size() << " " << difference(after, before) << " " << off << "\n";
    }
  } catch (const qb::Error& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
  return 0;
}
