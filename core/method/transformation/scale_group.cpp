#include "core/method/transformation/scale_group.h"

#include <algorithm>
#include <set>

#include "core/base/error.h"

namespace qb {
namespace {

// Rounded as a checkpoint of the run's dtype holds it.
at::Tensor as_stored(const BlockWork& work, const at::Tensor& value, const at::Tensor& before) {
  return value.to(work.decoder.dtype()).to(before.scalar_type());
}

}  // namespace

std::vector<ScaleGroup> scale_groups(const BlockWork& work) {
  const LayerGraph& graph = work.decoder.graph(work.block.index);
  std::vector<ScaleGroup> groups;
  for (const GraphValue& value : graph.values()) {
    const Operation* made = graph.producer(value.id);
    if (!made || std::holds_alternative<DispatchOp>(made->kind)) continue;  // a dispatched vector is one of its source's
    const ChannelReaders readers = channel_readers(graph, value.id);
    if (readers.linears.empty() || !readers.complete) continue;
    ScaleGroup group;
    group.linears.assign(readers.linears.begin(), readers.linears.end());
    group.values = readers.values;
    group.routers = readers.routers;
    const ChannelSource source = channel_source(graph, value.id);
    if (!source.exists()) continue;
    if (source.norm) {
      group.norm = source.norm->tensor;
      group.plus_one = is_plus_one(source.norm->kind);
      group.count = work.block.others.at(group.norm + ".weight").numel();
    } else {
      group.producer = ScaleGroup::Producer::linear;
      group.linear = static_cast<size_t>(source.linear);
      group.count = work.linears[group.linear].info.out_features;
    }
    group.shared_rows = std::set<int64_t>(source.rows.begin(), source.rows.end()).size() < source.rows.size();
    group.rows = at::tensor(source.rows, at::kLong);
    group.power = source.power;
    groups.push_back(std::move(group));
  }
  return groups;
}

at::Tensor feasible(const ScaleGroup& group, const at::Tensor& scale) {
  at::Tensor s = scale.to(at::kFloat).nan_to_num(1, 1, 1).clamp(1e-4, 1e4);
  return group.shared_rows ? tied(group, s.log()).exp() : s;
}

at::Tensor tied(const ScaleGroup& group, const at::Tensor& log_scale) {
  if (!group.shared_rows) return log_scale;
  const at::Tensor rows = group.rows.to(log_scale.device());
  const int64_t count = rows.max().item<int64_t>() + 1;
  const at::Tensor members = at::zeros({count}, log_scale.options()).index_add(0, rows, at::ones_like(log_scale)).clamp_min(1);
  return (at::zeros({count}, log_scale.options()).index_add(0, rows, log_scale) / members).index_select(0, rows);
}

at::Tensor by_row(const ScaleGroup& group, const at::Tensor& scale) {
  const at::Tensor factors = at::ones({group.count}, scale.options()).index_copy(0, group.rows.to(scale.device()), scale);
  return group.power == 1 ? factors : factors.pow(1 / group.power);
}

void apply_scale(BlockWork& work, const ScaleGroup& group, const at::Tensor& scale) {
  at::Tensor s = feasible(group, scale);
  const at::Tensor by_row = qb::by_row(group, s);
  if (group.producer == ScaleGroup::Producer::norm) {
    at::Tensor& weight = work.block.others.at(group.norm + ".weight");
    const at::Tensor before = group.plus_one ? weight.to(at::kFloat) + 1 : weight.to(at::kFloat);
    const at::Tensor stored = as_stored(work, group.plus_one ? before / by_row - 1 : before / by_row, weight);
    const at::Tensor after = group.plus_one ? stored.to(at::kFloat) + 1 : stored.to(at::kFloat);
    s = at::where((before != 0).logical_and(after != 0), before / after, by_row).pow(group.power).index_select(0, group.rows.to(s.device()));
    weight = stored;
    if (const auto bias = work.block.others.find(group.norm + ".bias"); bias != work.block.others.end())
      bias->second = as_stored(work, bias->second.to(at::kFloat) / by_row, bias->second);
  } else {
    LinearWork& producer = work.linears[group.linear];
    producer.transform([&](const at::Tensor& w) { return w / by_row.unsqueeze(1); });
    producer.output_scale = producer.output_scale.defined() ? producer.output_scale * by_row : by_row;
    if (producer.range) {
      if (producer.range->low.size(0) != by_row.size(0))
        throw InputError(producer.module + ": a transformation after clipping needs ranges per channel or group; put clipping after it");
      producer.range = Range{producer.range->low / by_row.unsqueeze(1), producer.range->high / by_row.unsqueeze(1)};
    }
    at::Tensor& bias = work.block.linears[group.linear].bias;
    if (bias.defined()) bias = as_stored(work, bias.to(at::kFloat) / by_row, bias);
  }
  scale_readers(work, group, s);
  for (const std::string& name : group.routers) {
    at::Tensor& router = work.block.others.at(name + ".weight");
    router = as_stored(work, router.to(at::kFloat) * s, router);
  }
}

void scale_readers(BlockWork& work, const ScaleGroup& group, const at::Tensor& s) {
  for (size_t i : group.linears) {
    LinearWork& linear = work.linears[i];
    linear.transform([&](const at::Tensor& w) { return w * s; });
    linear.input_scale = linear.input_scale.defined() ? linear.input_scale * s : s;
    linear.range.reset();  // its columns changed differently
  }
  for (const ValueId value : group.values) {
    const auto it = work.statistics.find(value);
    if (it == work.statistics.end()) continue;
    ValueStatistics& stats = it->second;
    if (stats.gram.defined()) stats.gram.div_(s.unsqueeze(1)).div_(s);
    for (auto& [reader, grams] : stats.guided) grams.div_(s.unsqueeze(1)).div_(s);
    if (stats.abs_max.defined()) stats.abs_max = stats.abs_max / s;
    if (stats.mean_abs.defined()) stats.mean_abs = stats.mean_abs / s;
    if (stats.sum_squares.defined()) stats.sum_squares = stats.sum_squares / s / s;
    if (stats.rows.defined()) stats.rows = stats.rows.to(at::kFloat) / s;
  }
}

bool can_shift(const BlockWork& work, const ScaleGroup& group) {
  // What reads a shifted vector must get it back: readers need biases, and routers have none.
  if (!group.routers.empty() || group.shared_rows) return false;
  for (size_t i : group.linears)
    if (!work.block.linears[i].bias.defined()) return false;
  if (group.producer == ScaleGroup::Producer::norm) return work.block.others.contains(group.norm + ".bias");
  return false;  // an activation or a product lies between
}

void apply_shift(BlockWork& work, const ScaleGroup& group, const at::Tensor& shift) {
  at::Tensor& bias = work.block.others.at(group.norm + ".bias");
  const at::Tensor before = bias.to(at::kFloat);
  const at::Tensor stored = as_stored(work, before - shift, bias);
  const at::Tensor moved = before - stored.to(at::kFloat);
  bias = stored;
  for (size_t i : group.linears) {
    at::Tensor& reader = work.block.linears[i].bias;
    reader = as_stored(work, reader.to(at::kFloat) + work.linears[i].reference.matmul(moved), reader);
  }
  for (const ValueId value : group.values) {
    const auto it = work.statistics.find(value);
    if (it == work.statistics.end()) continue;
    ValueStatistics& stats = it->second;
    if (stats.rows.defined()) stats.rows = stats.rows.to(at::kFloat) - moved;
    // The other statistics are of the vector before: after a shift only a further pass tells them.
    if (!work.collect_again) continue;
    Statistics wanted = 0;
    if (stats.gram.defined()) wanted |= static_cast<Statistics>(Statistic::gram);
    if (stats.abs_max.defined()) wanted |= static_cast<Statistics>(Statistic::abs_max);
    if (stats.mean_abs.defined()) wanted |= static_cast<Statistics>(Statistic::mean_abs);
    if (stats.sum_squares.defined()) wanted |= static_cast<Statistics>(Statistic::sum_squares);
    if (!stats.guided.empty()) wanted |= static_cast<Statistics>(Statistic::guided);
    use_current_weights(work);
    ValueStatistics fresh = work.collect_again(value, wanted);
    fresh.rows = stats.rows;
    stats = std::move(fresh);
  }
}

}  // namespace qb
