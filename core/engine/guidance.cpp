#include "core/engine/guidance.h"

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/engine/gradient_walk.h"
#include "core/engine/module_name.h"

namespace qb {
namespace {

// Sums over one block's batches.
struct Sums {
  at::Tensor tokens;   // [tokens, groups] float32: mean over the group's rows of squared gradients
  at::Tensor came;     // [tokens] bool, of experts: that were routed to it; undefined: all
  at::Tensor outputs;  // [out] float64
};

// Means of squares [tokens, channels] over the groups of rows that the channels belong to, added to `to` [tokens, groups].
void add_by_group(const at::Tensor& to, const at::Tensor& squares, const Rows& rows, int64_t out) {
  const int64_t groups = to.size(1);
  auto first = [&](int64_t group) { return (out * group + groups - 1) / groups; };
  std::vector<int64_t> group;
  std::vector<float> share;
  for (int64_t c = 0; c < squares.size(1); ++c) {
    group.push_back(rows.of(c) * groups / out);
    share.push_back(1.0F / static_cast<float>(first(group.back() + 1) - first(group.back())));
  }
  to.add_(squares.matmul(at::zeros({squares.size(1), groups}).scatter_(1, at::tensor(group).unsqueeze(1), at::tensor(share).unsqueeze(1)).to(squares.device())));
}

}  // namespace

Guidance::Guidance(const std::shared_ptr<const Model>& model, Decoder& decoder, const TokenSet& tokens, const GuidanceOptions& options, const Control& control,
                   const std::function<void(int block, double share)>& passed)
    : folder_(options.folder) {
  const int blocks = decoder.blocks();
  auto done = [this](int block) { return std::filesystem::exists(place(block)) && damage_of(place(block)).empty(); };
  for (const auto& layer : decoder.architecture().layers) linears_.push_back(layer.linears.size());
  auto map = [&] {
    for (int i = 0; i < blocks; ++i) blocks_.push_back(open_checked_safetensors(place(i)));
  };
  bool all = true;
  for (int i = 0; i < blocks && all; ++i) all = done(i);
  if (all) {
    map();
    return;
  }
  std::error_code error;
  std::filesystem::create_directories(folder_, error);
  if (error) throw ResourceError(fmt::format("{}: cannot create the folder: {}", folder_.string(), error.message()));
  GradientWalk walk(model, decoder, tokens, EndLoss::kl, options.seed, options.resident_bytes, folder_, control);
  // Forward is a third of the work.
  if (!walk.turned(done)) walk.forward({}, [&](int block) { passed(block, (block + 1) / (3.0 * blocks)); });
  const std::unique_ptr<HiddenStates> states = walk.states();
  std::vector<int64_t> first{0};  // token of each batch
  for (size_t b = 0; b < states->batches(); ++b) first.push_back(first.back() + states->ids(b).numel());
  std::vector<Sums> sums;
  walk.backward(
      done,
      [&](int index, size_t batch, BlockGradients& gradients) {
        const auto& linears = model->info.blocks[static_cast<size_t>(index)].linears;
        const LayerGraph& graph = decoder.graph(index);
        if (batch == 0) sums.assign(linears.size(), {});
        for (const LinearGradient& gradient : gradients.linears) {
          const int64_t out = linears[gradient.linear].out_features;
          const at::Tensor squares = gradient.values.to(at::kFloat).square();
          Sums& s = sums[gradient.linear];
          add_squares(s.outputs, gradient, squares, out);
          if (!s.tokens.defined()) s.tokens = at::zeros({first.back(), options.groups}, squares.options());
          const at::Tensor part = s.tokens.narrow(0, first[batch], first[batch + 1] - first[batch]);
          const auto routed = token_choice(graph, linears[gradient.linear].input);
          if (!routed) {
            add_by_group(part, squares, gradient.rows, out);
            continue;
          }
          const at::Tensor rows = gradients.values.at(*routed).select(1, 0);
          const at::Tensor own = at::zeros({rows.size(0), options.groups}, squares.options());
          add_by_group(own, squares, gradient.rows, out);
          part.index_add_(0, rows, own);
          if (!s.came.defined()) s.came = at::zeros({first.back()}, squares.options().dtype(at::kBool));
          s.came.narrow(0, first[batch], part.size(0)).index_fill_(0, rows, true);
        }
      },
      [&](int index) {
        std::vector<std::pair<std::string, at::Tensor>> tensors{{"guidance", at::tensor({options.groups}, at::kLong)}};
        const auto& linears = model->info.blocks[static_cast<size_t>(index)].linears;
        for (size_t i = 0; i < sums.size(); ++i) {
          Sums& s = sums[i];
          if (!s.tokens.defined()) {  // the predictions do not depend on it: all tokens alike, and errors count nothing beside those of others
            s.tokens = at::ones({first.back(), options.groups});
            s.outputs = at::zeros({linears[i].out_features}, at::kDouble);
          }
          const double count = s.came.defined() ? s.came.sum().item<double>() : static_cast<double>(first.back());
          at::Tensor weights = s.tokens.t().contiguous();  // [groups, tokens]
          const at::Tensor mean = weights.sum(1, true, at::kDouble) / std::max(count, 1.0);
          if (!mean.isfinite().all().item<bool>())
            throw InputError(fmt::format("guided statistics: gradients of {} are not numbers: activations or gradients overflow in {}", module_of(linears[i]), at::toString(decoder.dtype())));
          weights = at::where(mean > 0, weights / mean, 1).to(at::kFloat);
          if (s.came.defined()) weights.masked_fill_(s.came.logical_not(), 1);
          tensors.emplace_back(fmt::format("{}.tokens", i), weights.to(at::kBFloat16).to(at::kCPU).contiguous());
          tensors.emplace_back(fmt::format("{}.outputs", i), (s.outputs / static_cast<double>(first.back())).to(at::kCPU, at::kFloat));
        }
        sums.clear();
        write_checked_safetensors(place(index), tensors);
        walk.forget(index + 1);
        passed(index, 1.0 / 3 + 2 * (blocks - index) / (3.0 * blocks));
      });
  walk.remove();
  map();
}

std::filesystem::path Guidance::place(int block) const { return folder_ / fmt::format("block-{:04}.safetensors", block); }

std::vector<LinearGuidance> Guidance::of(int block, at::Device device) const {
  const TensorSourcePtr& stored = blocks_[static_cast<size_t>(block)].tensors;
  std::vector<LinearGuidance> all;
  for (size_t i = 0; i < linears_[static_cast<size_t>(block)]; ++i) {
    all.emplace_back();
    const std::string tokens = fmt::format("{}.tokens", i), outputs = fmt::format("{}.outputs", i);
    all.back().tokens = stored->read(tokens).to(device, at::kFloat);
    all.back().outputs = stored->read(outputs).to(device, at::kFloat);
  }
  return all;
}

}  // namespace qb
