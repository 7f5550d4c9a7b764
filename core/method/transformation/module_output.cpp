#include "core/method/transformation/module_output.h"

#include "core/base/error.h"
#include "core/quant/rounding_error.h"

namespace qb {
namespace {

// Some of all samples, evenly spread.
std::vector<at::Tensor> spread(const BlockSamples& samples, int64_t count) {
  int64_t total = 0, seen = 0;
  for (int64_t b = 0; b < samples.batches(); ++b) total += samples.input(b).size(0);
  if (count <= 0 || count > total) count = total;
  std::vector<at::Tensor> some;
  for (int64_t b = 0; b < samples.batches(); ++b) {
    const at::Tensor input = samples.input(b);
    std::vector<int64_t> chosen;
    for (int64_t i = 0; i < input.size(0); ++i, ++seen)
      if ((seen + 1) * count / total > seen * count / total) chosen.push_back(i);
    if (!chosen.empty()) some.push_back(input.index_select(0, at::tensor(chosen, at::kLong)));
  }
  return some;
}

}  // namespace

ModuleOutput::ModuleOutput(const BlockWork& work, const ScaleGroup& group, int64_t samples) : work_(work), group_(group) {
  const LayerGraph& graph = work.decoder.graph(work.block.index);
  const int end = group.routers.empty() ? module_end(graph, {group.linears.begin(), group.linears.end()}) : -1;
  if (end >= 0) last_ = static_cast<size_t>(end);
  if (!work.samples) throw InternalError("a stage runs the block but did not ask for its inputs");
  for (const at::Tensor& input : spread(*work.samples, samples)) {
    work.control.checkpoint();
    inputs_.push_back(input.to(work.decoder.device()));
    float_.push_back(run(work.block, inputs_.back(), {}));
  }
}

at::Tensor ModuleOutput::run(const Block& block, const at::Tensor& input, const LinearTap& tap) const {
  ForwardContext context;
  context.at_linear = [&](const Linear& linear, const at::Tensor& x) {
    work_.control.checkpoint();
    return tap ? tap(linear, x) : x;
  };
  if (last_) context.stop_at = work_.linears[*last_].info.input;
  const at::Tensor out = work_.decoder.forward(block, input, context);
  return last_ ? out : work_.decoder.hidden_part(out);
}

double ModuleOutput::error(const at::Tensor& scale) const {
  Block trial = work_.block;  // shares all tensors that are not replaced
  std::map<std::string, QuantSpec> activations;
  for (size_t i : group_.linears) {
    const LinearWork& linear = work_.linears[i];
    if (!linear.spec) continue;
    const at::Tensor scaled = linear.weight * scale;
    const at::Tensor rounded = rounding_error(scaled, *linear.spec, find_grid(scaled, *linear.spec, work_.control)).add_(scaled).div_(scale);
    trial.linears[i].weight = rounded.to(work_.decoder.weight_dtype());
    if (linear.activations) activations.emplace(linear.info.tensor, *linear.activations);
  }
  const LinearTap tap = [&](const Linear& linear, const at::Tensor& x) -> at::Tensor {
    const auto it = activations.find(linear.info.tensor);
    return it == activations.end() ? x : (fake_quantize(x / scale, it->second) * scale).to(x.scalar_type());
  };
  double sum = 0;
  for (size_t b = 0; b < inputs_.size(); ++b) {
    at::Tensor off = run(trial, inputs_[b], tap).to(at::kFloat) - float_[b].to(at::kFloat);
    if (last_) off = off.matmul(work_.block.linears[*last_].weight.to(at::kFloat).t());
    sum += off.square_().sum(at::kDouble).item<double>();
  }
  return sum;
}

}  // namespace qb
