#include "core/engine/collector.h"

#include "core/engine/column_sizes.h"
#include "core/engine/gram.h"

namespace qb {

Collector::Collector(Statistics wanted, int64_t rows, int64_t expected_tokens)
    : wanted_(wanted), stride_(std::max<int64_t>(1, expected_tokens / std::max<int64_t>(1, rows))), rows_(rows) {}

ValueTap Collector::tap(const Control& control, std::optional<ValueId> of) {
  return [this, &control, of](const GraphValue& value, const at::Tensor& x) {
    control.checkpoint();
    if (graph_ && value.producer >= 0 && !value.tapped && std::holds_alternative<DispatchOp>(graph_->producer(value.id)->kind)) chosen_[value.id] = x;
    if (of ? value.id == *of : value.tapped) add(value.id, x);
    if (graph_ && (of ? value.id == *of : value.tapped)) add_guided(value, x);
    return x;
  };
}

void Collector::guide(const LayerGraph& graph, const std::vector<LinearGuidance>& guidance) {
  graph_ = &graph;
  guidance_ = &guidance;
}

void Collector::add_guided(const GraphValue& value, const at::Tensor& x) {
  if (x.size(0) == 0) return;
  const auto choice = token_choice(*graph_, value.id);
  for (int reader : value.readers) {
    const auto* linear = std::get_if<LinearOp>(&graph_->operations()[static_cast<size_t>(reader)].kind);
    if (!linear) continue;
    const auto index = static_cast<size_t>(linear->linear);
    const LinearGuidance& guidance = (*guidance_)[index];
    // Of tokens behind the guided samples nothing is known.
    const int64_t known = guidance.tokens.size(1) - first_token_;
    if (known <= 0) continue;
    at::Tensor seen = x, weights;
    if (choice) {
      const at::Tensor tokens = chosen_.at(*choice).select(1, 0), which = tokens.lt(known).nonzero().flatten();
      if (which.numel() < x.size(0)) seen = x.index_select(0, which);
      weights = guidance.tokens.index_select(1, tokens.index_select(0, which) + first_token_);
    } else {
      seen = x.narrow(0, 0, std::min(known, x.size(0)));
      weights = guidance.tokens.narrow(1, first_token_, seen.size(0));
    }
    at::Tensor& grams = values_[value.id].guided[index];
    if (!grams.defined()) grams = at::zeros({weights.size(0), x.size(1), x.size(1)}, x.options().dtype(at::kFloat));
    for (int64_t g = 0; g < weights.size(0); ++g) add_upper_gram(grams[g], (seen * weights[g].sqrt().unsqueeze(1)).to(x.scalar_type()));
  }
}

void Collector::add(ValueId value, const at::Tensor& x) {
  ValueStatistics& s = values_[value];
  const int64_t in = x.size(1);
  if (x.size(0) == 0) return;
  auto wants = [&](Statistic what) { return (wanted_ & static_cast<Statistics>(what)) != 0; };
  if (wants(Statistic::rows)) {
    // Every stride-th row of the whole stream, so that samples of all batches are there.
    const int64_t begin = (stride_ - s.tokens % stride_) % stride_;
    if (begin < x.size(0)) sample(value, x.slice(0, begin, x.size(0), stride_));
  }
  if (wants(Statistic::abs_max) || wants(Statistic::mean_abs) || wants(Statistic::sum_squares)) {
    const ColumnSizes sizes = column_sizes(x);
    auto add = [&](at::Tensor& to, const at::Tensor& sum) { to = to.defined() ? to.add_(sum) : sum.clone(); };
    if (wants(Statistic::abs_max)) s.abs_max = s.abs_max.defined() ? at::maximum_out(s.abs_max, s.abs_max, sizes.abs_max) : sizes.abs_max.clone();
    if (wants(Statistic::mean_abs)) add(s.mean_abs, sizes.abs_sum);
    if (wants(Statistic::sum_squares)) add(s.sum_squares, sizes.square_sum);
  }
  if (wants(Statistic::gram)) {
    if (!s.gram.defined()) s.gram = at::zeros({in, in}, x.options().dtype(at::kFloat));
    add_upper_gram(s.gram, x);
  }
  s.tokens += x.size(0);
}

// Into few places, which double: a clone of every batch, made between its large tensors, would scatter over the heap and keep
// it from being used again.
void Collector::sample(ValueId value, const at::Tensor& rows) {
  Sample& kept = sampled_[value];
  const int64_t count = std::min(rows.size(0), rows_ - kept.count), needed = kept.count + count;
  if (!kept.rows.defined() || needed > kept.rows.size(0)) {
    at::Tensor wider = at::empty({std::min(rows_, 2 * needed), rows.size(1)}, rows.options());
    if (kept.count > 0) wider.narrow(0, 0, kept.count).copy_(kept.rows.narrow(0, 0, kept.count));
    kept.rows = std::move(wider);
  }
  kept.rows.narrow(0, kept.count, count).copy_(rows.narrow(0, 0, count));
  kept.count += count;
}

std::map<ValueId, ValueStatistics> Collector::take() {
  for (auto& [value, s] : values_) {
    if (s.gram.defined()) s.gram = complete_gram(s.gram);
    for (auto& [linear, grams] : s.guided)
      for (int64_t g = 0; g < grams.size(0); ++g) complete_gram(grams[g]);
    if (s.mean_abs.defined() && s.tokens > 0) s.mean_abs = s.mean_abs / static_cast<double>(s.tokens);
    if (auto it = sampled_.find(value); it != sampled_.end()) s.rows = it->second.rows.narrow(0, 0, it->second.count);
  }
  sampled_.clear();
  return std::move(values_);
}

}  // namespace qb
