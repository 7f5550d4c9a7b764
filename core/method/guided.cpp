#include "core/method/guided.h"

#include <algorithm>

namespace qb {

void add_guided_knobs(MethodInfo& method) {
  method.knobs.push_back({"statistics", "Statistics", KnobType::choice, std::string("plain"), 0, 0, {"plain", "guided"}, "",
           "guided: tokens and outputs count by the gradient of the model's divergence, from one pass back through the float model", "Kim et al. 2025, arXiv 2505.07004"});
  method.knobs.push_back({"guided_groups", "Guided groups", KnobType::integer, int64_t{1}, 1, 64, {}, "groups", "guided: groups of output rows with weights of tokens of their own; stages of a pipeline share the most that one asks for", "GuidedQuant: 4"});
  method.knobs.push_back({"guided_samples", "Guided samples", KnobType::integer, int64_t{0}, 0, 1000000, {}, "samples",
                          "guided: the first calibration samples, on which gradients are taken and of which the guided matrices then are; stages share the most that one asks for", "this program", "all samples"});
}

std::optional<GuidedWish> guided_wish(const StageSpec& stage) {
  if (knob<std::string>(stage, "statistics") != "guided") return std::nullopt;
  return GuidedWish{knob<int64_t>(stage, "guided_groups"), knob<int64_t>(stage, "guided_samples")};
}

std::optional<GuidedWish> guided_wish(const std::vector<StageSpec>& pipeline) {
  std::optional<GuidedWish> all;
  for (const StageSpec& stage : pipeline) {
    const MethodInfo* method = find_method(stage.method);
    if (!method || std::none_of(method->knobs.begin(), method->knobs.end(), [](const KnobInfo& k) { return k.name == "guided_groups"; })) continue;
    const auto wish = guided_wish(stage);
    if (!wish) continue;
    all = all ? GuidedWish{std::max(all->groups, wish->groups), all->samples > 0 && wish->samples > 0 ? std::max(all->samples, wish->samples) : 0} : *wish;
  }
  return all;
}

std::vector<RowGram> row_grams(const BlockWork& work, const LinearWork& linear, bool guided) {
  const auto it = work.statistics.find(linear.info.input);
  if (it == work.statistics.end()) return {};
  const int64_t out = linear.info.out_features;
  if (!guided) return it->second.gram.defined() ? std::vector<RowGram>{{0, out, it->second.gram}} : std::vector<RowGram>{};
  const auto index = static_cast<size_t>(&linear - work.linears.data());
  const auto found = it->second.guided.find(index);
  if (found == it->second.guided.end()) return {};
  const int64_t groups = found->second.size(0);
  std::vector<RowGram> all;
  for (int64_t g = 0; g < groups; ++g)
    if (const int64_t first = (out * g + groups - 1) / groups, last = (out * (g + 1) + groups - 1) / groups; first < last) all.push_back({first, last, found->second[g]});
  return all;
}

at::Tensor joint_gram(const std::vector<RowGram>& grams, const LinearWork& linear) {
  if (grams.size() == 1) return grams.front().gram;
  const at::Tensor weight = output_weight(linear, true);
  const double all = weight.sum(at::kDouble).item<double>();
  at::Tensor joint = at::zeros_like(grams.front().gram);
  for (const RowGram& g : grams) {
    const double share = all > 0 ? weight.slice(0, g.first, g.last).sum(at::kDouble).item<double>() / all : 1.0 / static_cast<double>(grams.size());
    joint.add_(g.gram, share);
  }
  return joint;
}

at::Tensor output_weight(const LinearWork& linear, bool guided) {
  if (!guided || !linear.output_weight.defined()) return {};
  return linear.output_scale.defined() ? linear.output_weight * linear.output_scale.to(at::kFloat).square() : linear.output_weight;
}

at::Tensor row_products(const at::Tensor& difference, const std::vector<RowGram>& grams) {
  if (grams.size() == 1) return difference.matmul(grams.front().gram).mul_(difference);
  std::vector<at::Tensor> parts;
  for (const RowGram& g : grams) {
    const at::Tensor rows = difference.slice(0, g.first, g.last);
    parts.push_back(rows.matmul(g.gram).mul_(rows));
  }
  return at::cat(parts);
}

}  // namespace qb
