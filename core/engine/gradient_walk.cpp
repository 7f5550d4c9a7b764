#include "core/engine/gradient_walk.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include "core/base/error.h"
#include "core/base/memory.h"
#include "core/format/checked_safetensors.h"
#include "core/model/output_gradient.h"

namespace qb {

std::string to_text(EndLoss loss) { return loss == EndLoss::kl ? "kl" : loss == EndLoss::cross_entropy ? "cross_entropy" : "none"; }

std::optional<EndLoss> parse_end_loss(const std::string& text) {
  for (EndLoss loss : {EndLoss::none, EndLoss::kl, EndLoss::cross_entropy})
    if (to_text(loss) == text) return loss;
  return std::nullopt;
}

void add_squares(at::Tensor& rows, const LinearGradient& gradient, const at::Tensor& squares, int64_t out_features) {
  if (!rows.defined()) rows = at::zeros({out_features}, at::TensorOptions().dtype(at::kDouble).device(squares.device()));
  const at::Tensor sums = squares.sum(0, false, at::kDouble);
  if (gradient.rows.groups == 1) {
    rows.narrow(0, gradient.rows.first, gradient.rows.count) += sums;
  } else {
    rows.view({gradient.rows.groups, gradient.rows.stride}).narrow(1, gradient.rows.first, gradient.rows.count) += sums.view({gradient.rows.groups, gradient.rows.count});
  }
}

namespace {

void save(const HiddenStates& states, const std::filesystem::path& path) {
  std::vector<std::pair<std::string, at::Tensor>> all;
  for (size_t b = 0; b < states.batches(); ++b) all.emplace_back(fmt::format("{}", b), states[b]);
  write_checked_safetensors(path, all);
}

bool read(HiddenStates& states, const std::filesystem::path& path) {
  if (!std::filesystem::exists(path) || !damage_of(path).empty()) return false;
  const auto stored = open_checked_safetensors(path).tensors;
  for (size_t b = 0; b < states.batches(); ++b) states[b].copy_(stored->read(fmt::format("{}", b)));
  return true;
}

}  // namespace

GradientWalk::GradientWalk(const std::shared_ptr<const Model>& model, Decoder& decoder, const TokenSet& tokens, EndLoss loss, uint64_t seed, int64_t resident_bytes,
                           const std::filesystem::path& folder, const Control& control)
    : model_(model), decoder_(decoder), tokens_(tokens), loss_(loss), seed_(seed), resident_bytes_(resident_bytes), folder_(folder), control_(control) {}

std::filesystem::path GradientWalk::states_path(int block) const { return folder_ / fmt::format("states-{:04}.safetensors", block); }
std::filesystem::path GradientWalk::gradient_path(int block) const { return folder_ / fmt::format("gradient-{:04}.safetensors", block); }

std::unique_ptr<HiddenStates> GradientWalk::states() const {
  return std::make_unique<HiddenStates>(tokens_, model_->architecture.carried_width(), decoder_.dtype(), resident_bytes_, folder_, kBatchTokens);
}

void GradientWalk::load(HiddenStates& states, int block) const {
  if (!read(states, states_path(block))) throw InputError(fmt::format("{}: {}; delete the folder to begin anew", states_path(block).string(), damage_of(states_path(block))));
}

void GradientWalk::forget(int block) const {
  std::error_code ignored;
  std::filesystem::remove(states_path(block), ignored);
}

void GradientWalk::remove() const {
  std::error_code ignored;
  for (int i = 0; i <= decoder_.blocks(); ++i) {
    forget(i);
    std::filesystem::remove(gradient_path(i), ignored);
  }
}

double GradientWalk::predictions() const {
  double count = 0;
  for (const auto& sample : tokens_.samples) count += static_cast<double>(sample.size()) - (loss_ == EndLoss::cross_entropy ? 1 : 0);
  return count;
}

void GradientWalk::forward(const std::function<ValueTap(int block)>& watch, const std::function<void(int block)>& passed) {
  const int blocks = decoder_.blocks();
  auto hidden = states();
  int first = blocks;
  while (first > 0 && !read(*hidden, states_path(first))) --first;
  if (first == 0) {
    for (size_t b = 0; b < hidden->batches(); ++b) {
      control_.checkpoint();
      (*hidden)[b].copy_(decoder_.embed(hidden->ids(b).to(decoder_.device())));
    }
    save(*hidden, states_path(0));
  }
  int held = first;  // the block that they enter
  for (int i = 0; i < blocks; ++i) {
    ForwardContext context;
    if (watch) context.at_value = watch(i);
    if (i < first && !context.at_value) {
      passed(i);
      continue;
    }
    if (held != i) load(*hidden, i);
    const Block block = decoder_.load_block(i);
    if (!context.at_value)
      context.at_value = [this](const GraphValue&, const at::Tensor& x) {
        control_.checkpoint();
        return x;
      };
    for (size_t b = 0; b < hidden->batches(); ++b) (*hidden)[b].copy_(decoder_.forward(block, (*hidden)[b].to(decoder_.device()), context));
    held = i + 1;
    if (held > first) save(*hidden, states_path(held));
    passed(i);
    release_freed_memory();
    control_.milestone();
  }
}

bool GradientWalk::turned(const std::function<bool(int block)>& done) const {
  for (int i = 0; i < decoder_.blocks(); ++i)
    if (done(i) && std::filesystem::exists(gradient_path(i)) && damage_of(gradient_path(i)).empty()) return true;
  return false;
}

void GradientWalk::backward(const std::function<bool(int block)>& done, const std::function<void(int block, size_t batch, BlockGradients& gradients)>& batch,
                            const std::function<void(int block)>& finished) {
  auto inputs = states(), gradient = states();
  const int blocks = decoder_.blocks();
  std::optional<int> next;  // whose output the gradient is of
  for (int i = 0; i < blocks && !next; ++i)
    if (done(i) && read(*gradient, gradient_path(i))) next = i - 1;
  if (!next) {
    begin(*inputs, *gradient);
    next = blocks - 1;
  }
  for (int i = *next; i >= 0; --i) {
    load(*inputs, i);
    const Block block = decoder_.load_block(i);
    for (size_t b = 0; b < inputs->batches(); ++b) {
      BlockGradients found = through(block, (*inputs)[b], (*gradient)[b]);
      batch(i, b, found);
      (*gradient)[b].copy_(found.by_input);
    }
    finished(i);
    save(*gradient, gradient_path(i));
    std::error_code ignored;
    std::filesystem::remove(gradient_path(i + 1), ignored);
    release_freed_memory();
    control_.milestone();
  }
}

void GradientWalk::begin(HiddenStates& last, HiddenStates& gradient) {
  load(last, decoder_.blocks());
  OutputGradient output(model_, model_->source, decoder_.dtype(), decoder_.device());
  for (size_t b = 0; b < last.batches(); ++b) {
    control_.checkpoint();
    const at::Tensor hidden = last[b].to(decoder_.device());
    gradient[b].copy_(loss_ == EndLoss::kl ? output.divergence_probe(hidden, seed_ + b) : output.cross_entropy(hidden, last.ids(b)));
  }
  release_freed_memory();
}

BlockGradients GradientWalk::through(const Block& block, const at::Tensor& input, const at::Tensor& by_output) const {
  const LayerGraph& graph = decoder_.graph(block.index);
  std::map<ValueId, std::pair<size_t, Rows>> made;
  for (size_t i = 0; i < block.linears.size(); ++i) {
    const Operation& step = graph.linear(static_cast<int>(i));
    const auto& op = std::get<LinearOp>(step.kind);
    for (size_t o = 0; o < step.outputs.size(); ++o) made[step.outputs[o]] = {i, op.outputs[o]};
  }
  BlockGradients result;
  std::map<ValueId, at::Tensor> added;  // zeros, for the gradients of what they are added to
  ForwardContext context;
  context.at_value = [&](const GraphValue& value, const at::Tensor& x) {
    control_.checkpoint();
    if (value.tapped) result.values[value.id] = x.detach().reshape({x.size(0), -1});
    if (value.producer >= 0 && std::holds_alternative<DispatchOp>(graph.operations()[static_cast<size_t>(value.producer)].kind) && !value.tapped) result.values[value.id] = x;
    if (!made.contains(value.id)) return x;
    return x + (added[value.id] = at::zeros_like(x).requires_grad_(true));
  };
  {
    at::AutoGradMode gradients(true);
    const at::Tensor leaf = input.to(decoder_.device(), decoder_.weight_dtype(), false, true).requires_grad_(true);
    decoder_.forward_learning(block, leaf, context).backward(by_output.to(decoder_.device(), decoder_.weight_dtype()));
    result.by_input = leaf.grad();
  }
  for (auto& [id, zeros] : added) {
    if (!zeros.grad().defined()) continue;
    const auto& [linear, rows] = made.at(id);
    result.linears.push_back({linear, rows, zeros.grad().reshape({zeros.size(0), -1})});
  }
  return result;
}

}  // namespace qb
