#include "core/method/transformation/scale_group.h"

#include <algorithm>

#include "core/base/error.h"

namespace qb {
namespace {

const Architecture& architecture(const BlockWork& work) { return work.decoder.architecture(); }

std::optional<size_t> with_role(const BlockWork& work, LinearRole role, int expert = -1) {
  for (size_t i = 0; i < work.linears.size(); ++i)
    if (work.block.linears[i].role == role && work.block.linears[i].expert == expert) return i;
  return std::nullopt;
}

void read_by_subset(const BlockWork& work, const std::string& subset, ScaleGroup& group) {
  const size_t before = group.linears.size();
  for (size_t i = 0; i < work.linears.size(); ++i)
    if (work.linears[i].info.subset == subset) group.linears.push_back(i);
  if (group.linears.size() > before) group.subsets.push_back(subset);
}

// All that reads the MLP's input.
void read_by_mlp(const BlockWork& work, ScaleGroup& group) {
  const Architecture& a = architecture(work);
  if (!a.layers[static_cast<size_t>(work.block.index)].experts) return read_by_subset(work, "gate_up", group);
  for (int64_t e = 0; e < a.experts; ++e) read_by_subset(work, "experts." + std::to_string(e) + ".gate_up", group);
  group.routers.push_back(a.names.router + ".weight");
  if (a.shared_intermediate_size > 0) {
    read_by_subset(work, "shared.gate_up", group);
    group.routers.push_back(a.names.shared_router + ".weight");
  }
}

bool has_norm(const BlockWork& work, const std::string& name) { return !name.empty() && work.block.others.contains(name + ".weight"); }

// Rows of v, wherever the matrix holds them, that make each channel of the attention's output.
std::optional<ScaleGroup> into_o(const BlockWork& work) {
  const Architecture& a = architecture(work);
  const bool fused = a.qkv != QkvLayout::separate;
  const auto producer = with_role(work, fused ? LinearRole::qkv : LinearRole::v);
  if (!producer) return std::nullopt;
  const int64_t d = a.head_dim, group_heads = a.heads / a.kv_heads;
  const at::Tensor channel = at::arange(a.heads * d, at::kLong);
  const at::Tensor head = channel.div(d, "floor").div(group_heads, "floor"), within = channel.remainder(d);
  ScaleGroup group;
  group.name = "o";
  read_by_subset(work, "o", group);
  group.producer = ScaleGroup::Producer::linear;
  group.linear = *producer;
  group.rows = head * d + within;
  if (a.qkv == QkvLayout::concatenated) group.rows += (a.heads + a.kv_heads) * d;
  if (a.qkv == QkvLayout::grouped) group.rows = (head * (group_heads + 2) + group_heads + 1) * d + within;
  group.shared_rows = group_heads > 1;
  return group;
}

std::optional<ScaleGroup> into_down(const BlockWork& work, const std::string& subset, LinearRole up, int expert) {
  const Architecture& a = architecture(work);
  const bool halved = a.gated && up == LinearRole::up && !a.names.gate_up.empty();
  // down(act(gate) · up) is linear in up; without a gate only ReLU lets a factor through.
  if (!a.gated && a.activation != Activation::relu) return std::nullopt;
  const auto producer = with_role(work, halved ? LinearRole::gate_up : up, expert);
  if (!producer) return std::nullopt;
  ScaleGroup group;
  group.name = subset;
  read_by_subset(work, subset, group);
  if (group.linears.empty()) return std::nullopt;
  group.producer = ScaleGroup::Producer::linear;
  group.linear = *producer;
  const int64_t inner = work.linears[group.linears.front()].info.in_features;
  group.rows = at::arange(inner, at::kLong);
  if (halved) group.rows += inner;
  return group;
}

// Rounded as a checkpoint of the run's dtype holds it.
at::Tensor as_stored(const BlockWork& work, const at::Tensor& value, const at::Tensor& before) {
  return value.to(work.decoder.dtype()).to(before.scalar_type());
}

}  // namespace

std::vector<ScaleGroup> scale_groups(const BlockWork& work) {
  const Architecture& a = architecture(work);
  const NameTable& n = a.names;
  std::vector<ScaleGroup> groups;
  const bool norms = a.norm_affine && !a.norm_after && !a.residual_after_norm;
  auto from_norm = [&](const std::string& norm) {
    ScaleGroup group;
    group.norm = norm;
    return group;
  };
  if (norms && has_norm(work, n.input_norm)) {
    ScaleGroup group = from_norm(n.input_norm);
    read_by_subset(work, "qkv", group);
    if (a.parallel && n.mlp_norm.empty()) read_by_mlp(work, group);
    groups.push_back(std::move(group));
  }
  if (auto group = into_o(work)) groups.push_back(std::move(*group));
  if (norms && has_norm(work, n.mlp_norm)) {
    ScaleGroup group = from_norm(n.mlp_norm);
    read_by_mlp(work, group);
    groups.push_back(std::move(group));
  }
  if (!a.layers[static_cast<size_t>(work.block.index)].experts) {
    if (auto group = into_down(work, "down", LinearRole::up, -1)) groups.push_back(std::move(*group));
  } else {
    for (int e = 0; e < a.experts; ++e)
      if (auto group = into_down(work, "experts." + std::to_string(e) + ".down", LinearRole::expert_up, e)) groups.push_back(std::move(*group));
    if (auto group = into_down(work, "shared.down", LinearRole::shared_up, -1)) groups.push_back(std::move(*group));
  }
  std::erase_if(groups, [](const ScaleGroup& g) { return g.linears.empty(); });
  for (ScaleGroup& group : groups)
    if (group.name.empty()) group.name = group.subsets.front();
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

void apply_scale(BlockWork& work, const ScaleGroup& group, const at::Tensor& scale) {
  at::Tensor s = feasible(group, scale);
  if (group.producer == ScaleGroup::Producer::norm) {
    const bool plus_one = architecture(work).norm == NormKind::rms_plus_one;
    at::Tensor& weight = work.block.others.at(group.norm + ".weight");
    const at::Tensor before = plus_one ? weight.to(at::kFloat) + 1 : weight.to(at::kFloat);
    const at::Tensor stored = as_stored(work, plus_one ? before / s - 1 : before / s, weight);
    const at::Tensor after = plus_one ? stored.to(at::kFloat) + 1 : stored.to(at::kFloat);
    s = at::where((before != 0).logical_and(after != 0), before / after, s);
    weight = stored;
    if (const auto bias = work.block.others.find(group.norm + ".bias"); bias != work.block.others.end())
      bias->second = as_stored(work, bias->second.to(at::kFloat) / s, bias->second);
  } else {
    LinearWork& producer = work.linears[group.linear];
    // One factor a row, whatever the number of channels that it makes.
    const at::Tensor rows = group.rows.to(s.device());
    const at::Tensor by_row = at::ones({producer.info.out_features}, s.options()).index_copy_(0, rows, s);
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
  for (size_t i : group.linears) {
    LinearWork& linear = work.linears[i];
    linear.transform([&](const at::Tensor& w) { return w * s; });
    linear.input_scale = linear.input_scale.defined() ? linear.input_scale * s : s;
    linear.range.reset();  // its columns changed differently
  }
  for (const std::string& name : group.routers) {
    at::Tensor& router = work.block.others.at(name);
    router = as_stored(work, router.to(at::kFloat) * s, router);
  }
  for (const std::string& subset : group.subsets) {
    const auto it = work.statistics.find(subset);
    if (it == work.statistics.end()) continue;
    SubsetStatistics& stats = it->second;
    if (stats.gram.defined()) stats.gram.div_(s.unsqueeze(1)).div_(s);
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
  for (const std::string& subset : group.subsets) {
    const auto it = work.statistics.find(subset);
    if (it == work.statistics.end()) continue;
    SubsetStatistics& stats = it->second;
    if (stats.rows.defined()) stats.rows = stats.rows.to(at::kFloat) - moved;
    // The other statistics are of the vector before: after a shift only a further pass tells them.
    if (!work.collect_again) continue;
    Statistics wanted = 0;
    if (stats.gram.defined()) wanted |= static_cast<Statistics>(Statistic::gram);
    if (stats.abs_max.defined()) wanted |= static_cast<Statistics>(Statistic::abs_max);
    if (stats.mean_abs.defined()) wanted |= static_cast<Statistics>(Statistic::mean_abs);
    if (stats.sum_squares.defined()) wanted |= static_cast<Statistics>(Statistic::sum_squares);
    use_current_weights(work);
    SubsetStatistics fresh = work.collect_again(subset, wanted);
    fresh.rows = stats.rows;
    stats = std::move(fresh);
  }
}

}  // namespace qb
