#include "core/model/block_forward.h"

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/model/attention.h"
#include "core/model/hadamard.h"
#include "core/model/hidden_streams.h"
#include "core/model/delta_rule.h"
#include "core/model/kernels.h"
#include "core/model/packed_pieces.h"
#include "core/model/router.h"

namespace qb {
namespace {

at::Tensor flat(const at::Tensor& x) { return x.dim() == 2 ? x : x.reshape({x.size(0), -1}); }

// [tokens, heads, width / heads], a view where the memory allows it.
at::Tensor by_head(const at::Tensor& x, int64_t heads) { return x.dim() == 3 && x.size(1) == heads ? x : x.reshape({x.size(0), heads, -1}); }

}  // namespace

at::Tensor BlockForward::tensor(const std::string& name) const {
  const auto it = block_.others.find(name);
  return it == block_.others.end() ? at::Tensor() : it->second;
}

at::Tensor BlockForward::own(const Operation& step, size_t input, at::Tensor x) const {
  // The layer's input belongs to the caller, and who looks at what linears read may keep it.
  return step.last_use[input] && step.inputs[input] != 0 && !graph_.value(step.inputs[input]).tapped ? std::move(x) : x.clone();
}

BlockForward::Tensors BlockForward::apply(const NormOp& op, const Operation& step, Tensors in) {
  at::Tensor weight, bias;
  if (op.own_tensors) {
    std::vector<at::Tensor> rows;
    for (int64_t h = 0; h < op.heads; ++h) rows.push_back(block_.others.at(fmt::format("{}.norms.{}.weight", op.tensor, h)));
    weight = at::stack(rows);
  } else if (!op.tensor.empty()) {
    weight = tensor(op.tensor + ".weight");
    bias = tensor(op.tensor + ".bias");
  }
  if (op.heads == 0) return {normalise(flat(in[0]).contiguous(), op.kind, op.eps, weight, bias)};
  return {normalise_heads(by_head(own(step, 0, std::move(in[0])), op.heads), op.kind, op.eps, weight, bias)};
}

BlockForward::Tensors BlockForward::apply(const LinearOp& op, const Operation&, Tensors in) {
  const Linear& linear = block_.linears[static_cast<size_t>(op.linear)];
  at::Tensor input = context_.at_linear ? context_.at_linear(linear, in[0]) : in[0];
  if (input.scalar_type() != held_) input = input.to(held_);
  const at::Tensor weight = linear.weight.scalar_type() == held_ ? linear.weight : linear.weight.to(held_);
  at::Tensor bias = linear.bias;
  if (bias.defined() && bias.scalar_type() != held_) bias = bias.to(held_);
  const at::Tensor all = linear_product(input, weight, bias);
  if (op.outputs.size() == 1) return {all};
  Tensors parts;
  for (const Rows& rows : op.outputs) {
    if (rows.groups == 1) {
      parts.push_back(all.narrow(1, rows.first, rows.count));
    } else {
      parts.push_back(all.view({all.size(0), rows.groups, rows.stride}).narrow(2, rows.first, rows.count));
    }
  }
  return parts;
}

BlockForward::Tensors BlockForward::apply(const RotaryOp& op, const Operation& step, Tensors in) {
  if (rotary_.size() > 64) rotary_.clear();  // texts of many lengths
  const int64_t length = context_.pieces ? context_.pieces->longest : first_ + seq_;
  auto [it, fresh] = rotary_.try_emplace({op.rope, length});
  if (fresh) it->second = rotary_table(a_.ropes[static_cast<size_t>(op.rope)], length, in[0].device());
  RotaryTable table = it->second;
  if (context_.pieces) table = {table.cos.index_select(0, context_.pieces->positions), table.sin.index_select(0, context_.pieces->positions)};
  if (first_ > 0) table = {table.cos.narrow(0, first_, seq_), table.sin.narrow(0, first_, seq_)};
  at::Tensor heads = by_head(own(step, 0, std::move(in[0])), op.heads);
  if (op.first == 0) return {apply_rotary(std::move(heads), table, seq_, op.interleaved)};
  const at::Tensor before = heads.narrow(2, 0, op.first), after = apply_rotary(heads.narrow(2, op.first, heads.size(2) - op.first), table, seq_, op.interleaved);
  return {learns(after) ? at::cat({before, after}, 2) : heads};  // rotated in place unless a gradient flows
}

BlockForward::Tensors BlockForward::apply(const AttentionOp& op, const Operation&, Tensors in) {
  AttentionSpec spec;
  spec.scale = op.scale;
  spec.softcap = op.softcap;
  spec.window = op.window;
  spec.chunk = op.chunk;
  if (!op.sinks.empty()) spec.sinks = block_.others.at(op.sinks);
  if (op.alibi) spec.alibi = alibi_;
  spec.round_alibi = op.round_alibi;
  auto batched = [&](const at::Tensor& x, int64_t heads) { return by_head(x, heads).unflatten(0, {batch_, seq_}); };
  at::Tensor k = batched(in[1], op.kv_heads), v = batched(in[2], op.kv_heads);
  if (context_.cache) std::tie(k, v) = context_.cache->append(block_.index, k, v);
  const at::Tensor q = batched(in[0], op.heads);
  return {(context_.pieces ? attention(q, k, v, spec, *context_.pieces) : attention(q, k, v, spec)).view({batch_ * seq_, -1})};
}

BlockForward::Tensors BlockForward::apply(const PositionScaleOp& op, const Operation&, Tensors in) {
  const auto options = at::TensorOptions().dtype(at::kFloat).device(in[0].device());
  const at::Tensor positions = context_.pieces ? context_.pieces->positions.to(at::kFloat) : at::arange(first_, first_ + seq_, options);
  const at::Tensor steps = (positions + static_cast<double>(op.offset)).div(static_cast<double>(op.context), "floor");
  const at::Tensor scale = (steps.log1p() * op.beta + 1).repeat({batch_}).unsqueeze(1);
  return {flat(in[0]) * scale.to(in[0].scalar_type())};
}

BlockForward::Tensors BlockForward::apply(const ClampOp& op, const Operation&, Tensors in) { return {in[0].clamp(-op.limit, op.limit)}; }

BlockForward::Tensors BlockForward::apply(const JoinOp& op, const Operation&, Tensors in) {
  const at::Tensor own_part = by_head(in[0], op.heads), shared = flat(in[1]).unsqueeze(1);
  return {at::cat({own_part, shared.expand({shared.size(0), op.heads, shared.size(2)})}, 2)};
}

BlockForward::Tensors BlockForward::apply(const ConcatenateOp&, const Operation&, Tensors in) {
  for (at::Tensor& x : in) x = flat(x);
  return {at::cat(in, 1)};
}

BlockForward::Tensors BlockForward::apply(const SplitOp&, const Operation& step, Tensors in) {
  Tensors parts;
  int64_t first = 0;
  for (ValueId id : step.outputs) {
    parts.push_back(in[0].narrow(1, first, graph_.value(id).width));
    first += graph_.value(id).width;
  }
  return parts;
}

BlockForward::Tensors BlockForward::apply(const ConvolutionOp& op, const Operation&, Tensors in) {
  at::Tensor bias = tensor(op.tensor + ".bias");
  if (bias.defined()) bias = bias.to(held_);
  return {causal_convolution(flat(in[0]).view({batch_, seq_, -1}), block_.others.at(op.tensor + ".weight").to(held_), bias).view({batch_ * seq_, -1})};
}

BlockForward::Tensors BlockForward::apply(const DeltaRuleOp& op, const Operation&, Tensors in) {
  auto heads = [&](const at::Tensor& x, int64_t count) { return by_head(x, count).unflatten(0, {batch_, seq_}); };
  const at::Tensor out = gated_delta_rule(heads(in[0], op.key_heads), heads(in[1], op.key_heads), heads(in[2], op.value_heads),
                                          flat(in[3]).view({batch_, seq_, -1}), flat(in[4]).view({batch_, seq_, -1}), block_.others.at(op.decay), block_.others.at(op.step));
  return {out.view({batch_ * seq_, op.value_heads, -1})};
}

BlockForward::Tensors BlockForward::apply(const MultiplyOp&, const Operation&, Tensors in) { return {flat(in[0]) * flat(in[1])}; }

BlockForward::Tensors BlockForward::apply(const ScaleOp& op, const Operation&, Tensors in) { return {flat(in[0]) * op.factor}; }

BlockForward::Tensors BlockForward::apply(const ChannelScaleOp& op, const Operation&, Tensors in) { return {flat(in[0]) * block_.others.at(op.tensor).to(held_)}; }

BlockForward::Tensors BlockForward::apply(const StreamRouterOp& op, const Operation&, Tensors in) {
  auto weight = [&](const std::string& name) { return block_.others.at(name + ".weight").to(held_); };
  const at::Tensor routed = at::linear(in[0] * op.scale, weight(op.router));
  return {at::linear(at::tanh(routed.to(at::kFloat)).to(held_), weight(op.coefficients))};
}

BlockForward::Tensors BlockForward::apply(const PredictOp&, const Operation& step, Tensors in) {
  const auto count = static_cast<int64_t>(step.outputs.size());
  const at::Tensor coefficients = in.back();
  in.pop_back();
  const at::Tensor streams = at::stack(in, 1);  // [tokens, streams, width]
  const at::Tensor predicted = streams + at::matmul(coefficients.view({-1, count, count}), streams);
  Tensors out;
  for (int64_t j = 0; j < count; ++j) out.push_back(predicted.select(1, j));
  return out;
}

BlockForward::Tensors BlockForward::apply(const CorrectOp&, const Operation& step, Tensors in) {
  const size_t count = step.outputs.size();
  const at::Tensor factors = in[count + 1] + 1;
  Tensors out;
  for (size_t j = 0; j < count; ++j) out.push_back(in[j] + in[count] * factors.narrow(1, static_cast<int64_t>(j), 1));
  return out;
}

BlockForward::Tensors BlockForward::apply(const TokenInputOp& op, const Operation&, Tensors in) { return {token_inputs_(token_ids(in[0]), op.layer)}; }

BlockForward::Tensors BlockForward::apply(const SparseGateOp& op, const Operation&, Tensors in) {
  const at::Tensor x = flat(in[0]);
  return {at::relu(x - (x.mean(1, true) + x.std(at::OptionalIntArrayRef(1), at::Scalar(0), true) * op.deviations))};
}

BlockForward::Tensors BlockForward::apply(const SigmoidGateOp&, const Operation&, Tensors in) { return {flat(in[0]) * at::sigmoid(flat(in[1]))}; }

BlockForward::Tensors BlockForward::apply(const ActivationOp& op, const Operation&, Tensors in) { return {activate(flat(in[0]), op.kind)}; }

BlockForward::Tensors BlockForward::apply(const GatedOp& op, const Operation& step, Tensors in) {
  return {activate_gated(flat(own(step, 0, std::move(in[0]))), flat(in[1]), op.kind).contiguous()};
}

BlockForward::Tensors BlockForward::apply(const AddOp& op, const Operation& step, Tensors in) {
  at::Tensor sum = own(step, 0, std::move(in[0]));
  if (op.scale != 1) sum.mul_(op.scale);
  return {sum.add_(in[1])};
}

BlockForward::Tensors BlockForward::apply(const RouterOp& op, const Operation&, Tensors in) {
  const at::ScalarType dtype = op.wide ? at::kFloat : held_;
  at::Tensor bias = tensor(op.tensor + ".bias");
  if (bias.defined()) bias = bias.to(dtype);
  const at::Tensor logits = at::linear(in[0].to(dtype), block_.others.at(op.tensor + ".weight").to(dtype), bias).to(at::kFloat);
  const auto [weights, experts] = route(logits, op, op.choice_bias.empty() ? at::Tensor() : block_.others.at(op.choice_bias));
  return {weights, experts};
}

BlockForward::Tensors BlockForward::apply(const DispatchOp& op, const Operation&, Tensors in) {
  const at::Tensor chosen = (in[1] == op.expert).nonzero();  // [n, 2]: token, rank
  if (chosen.size(0) == 0) return {at::Tensor(), at::Tensor()};
  const at::Tensor token = chosen.select(1, 0), rows = in[0].index_select(0, token);
  if (!op.weigh) return {rows, chosen};
  return {rows * in[2].index({token, chosen.select(1, 1)}).to(held_).unsqueeze(1), chosen};
}

BlockForward::Tensors BlockForward::apply(const ZeroOp&, const Operation&, Tensors in) { return {at::zeros_like(in[0])}; }

BlockForward::Tensors BlockForward::apply(const CombineOp& op, const Operation& step, Tensors in) {
  at::Tensor sum = own(step, 0, std::move(in[0]));
  if (!in[1].defined()) return {sum};
  const at::Tensor token = in[2].select(1, 0), rank = in[2].select(1, 1);
  if (!op.weigh) return {sum.index_add_(0, token, in[1])};
  return {sum.index_add_(0, token, in[1] * in[3].index({token, rank}).to(held_).unsqueeze(1))};
}

BlockForward::Tensors BlockForward::apply(const ShareOp& op, const Operation& step, Tensors in) {
  const at::Tensor share = at::sigmoid(at::linear(in[1], block_.others.at(op.tensor + ".weight").to(held_)));
  return {own(step, 0, std::move(in[0])).mul_(share)};
}

at::Tensor BlockForward::made(const GraphValue& value, at::Tensor x) const {
  if (value.hadamard) x = apply_hadamard(flat(x));
  if (context_.at_cache && value.cache != CachePart::none) x = context_.at_cache(block_.index, value, x);
  if (context_.at_value) x = context_.at_value(value, x);
  return x;
}

at::Tensor BlockForward::run(const at::Tensor& hidden) {
  batch_ = hidden.size(0), seq_ = hidden.size(1);
  if (context_.cache) first_ = context_.cache->tokens(block_.index);
  if ((context_.cache || context_.pieces) && !sees_by_attention(a_.layers[static_cast<size_t>(block_.index)]))
    throw InternalError(fmt::format("block {}: {} cannot continue a {} layer", block_.index, context_.cache ? "a cache of keys and values" : "pieces of sequences", a_.family));
  Tensors values(graph_.values().size());
  values[0] = made(graph_.value(0), hidden.reshape({batch_ * seq_, a_.carried_width()}).to(held_).contiguous());
  if (context_.stop_at == ValueId{0}) return values[0];
  for (const Operation& step : graph_.operations()) {
    Tensors in;
    for (size_t i = 0; i < step.inputs.size(); ++i) {
      at::Tensor& value = values[static_cast<size_t>(step.inputs[i])];
      in.push_back(step.last_use[i] ? std::move(value) : value);
    }
    if (context_.taps_only && !step.before_tap) continue;
    // Of an expert that no token chose nothing is made; a sum stays what it is.
    const bool nothing = !in.front().defined();
    if (!nothing) {
      Tensors out = std::visit([&](const auto& op) { return apply(op, step, std::move(in)); }, step.kind);
      const bool dispatches = std::holds_alternative<DispatchOp>(step.kind);  // which tokens came to an expert is told before what they are
      for (size_t n = 0; n < out.size(); ++n) {
        const size_t o = dispatches ? out.size() - 1 - n : n;
        if (!out[o].defined()) continue;
        at::Tensor& value = values[static_cast<size_t>(step.outputs[o])];
        value = made(graph_.value(step.outputs[o]), std::move(out[o]));
        if (context_.stop_at == step.outputs[o]) return flat(value);
      }
    }
    if (context_.stop_at && std::find(step.outputs.begin(), step.outputs.end(), *context_.stop_at) != step.outputs.end()) return {};
  }
  if (context_.taps_only) return {};
  return flat(values[static_cast<size_t>(graph_.output())]).view({batch_, seq_, a_.carried_width()});
}

}  // namespace qb
