#include "core/model/block_forward.h"

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/model/attention.h"
#include "core/model/hadamard.h"
#include "core/model/kernels.h"

namespace qb {

const Linear& BlockForward::linear_of(LinearRole role) const {
  for (const Linear& linear : block_.linears)
    if (linear.role == role) return linear;
  throw InternalError(fmt::format("block {}: a linear that the architecture {} needs is missing", block_.index, a_.family));
}

at::Tensor BlockForward::multiply(const Linear& linear, const at::Tensor& x) const {
  at::Tensor input = x;
  const bool down = linear.role == LinearRole::down || linear.role == LinearRole::expert_down || linear.role == LinearRole::shared_down;
  if ((a_.hadamard_down && down) || (a_.hadamard_heads && linear.role == LinearRole::o)) input = apply_hadamard(input);
  if (tap_) input = tap_(linear, input);
  if (input.scalar_type() != held_) input = input.to(held_);
  const at::Tensor weight = linear.weight.scalar_type() == held_ ? linear.weight : linear.weight.to(held_);
  at::Tensor bias = linear.bias;
  if (bias.defined() && bias.scalar_type() != held_) bias = bias.to(held_);
  return at::linear(input, weight, bias);
}

const at::Tensor* BlockForward::other(const std::string& name) const {
  auto it = block_.others.find(name);
  return it == block_.others.end() ? nullptr : &it->second;
}

at::Tensor BlockForward::norm(const std::string& name, const at::Tensor& x) const {
  const at::Tensor* weight = other(name + ".weight");
  const at::Tensor* bias = other(name + ".bias");
  return normalise(x, a_.norm, a_.norm_eps, weight ? *weight : at::Tensor(), bias ? *bias : at::Tensor());
}

at::Tensor BlockForward::norm_heads(at::Tensor x, const std::string& name) const {
  at::Tensor weight;
  if (!a_.head_norm_per_head) {
    weight = block_.others.at(name + ".weight");
  } else {
    std::vector<at::Tensor> rows;
    for (int64_t h = 0; h < x.size(1); ++h) rows.push_back(block_.others.at(fmt::format("{}.norms.{}.weight", name, h)));
    weight = at::stack(rows);
  }
  return normalise_heads(std::move(x), a_.head_norm == HeadNorm::layer, a_.norm == NormKind::rms_plus_one, a_.norm_eps, weight);
}

at::Tensor BlockForward::attend(const at::Tensor& x) const {
  const int64_t tokens = batch_ * seq_, d = a_.head_dim, group = a_.heads / a_.kv_heads;
  at::Tensor q, k, v;  // [tokens, heads, head_dim]
  if (a_.qkv == QkvLayout::separate) {
    q = multiply(linear_of(LinearRole::q), x).view({tokens, a_.heads, d});
    k = multiply(linear_of(LinearRole::k), x).view({tokens, a_.kv_heads, d});
    v = multiply(linear_of(LinearRole::v), x).view({tokens, a_.kv_heads, d});
  } else {
    const at::Tensor fused = multiply(linear_of(LinearRole::qkv), x);
    if (a_.qkv == QkvLayout::concatenated) {
      const at::Tensor heads = fused.view({tokens, a_.heads + 2 * a_.kv_heads, d});
      q = heads.narrow(1, 0, a_.heads);
      k = heads.narrow(1, a_.heads, a_.kv_heads);
      v = heads.narrow(1, a_.heads + a_.kv_heads, a_.kv_heads);
    } else {
      const at::Tensor groups = fused.view({tokens, a_.kv_heads, group + 2, d});
      q = groups.narrow(2, 0, group).reshape({tokens, a_.heads, d});
      k = groups.select(2, group);
      v = groups.select(2, group + 1);
    }
  }
  if (a_.head_norm != HeadNorm::none) {
    q = norm_heads(q, a_.names.q_norm);
    k = norm_heads(k, a_.names.k_norm);
  }
  const LayerSpec& layer = a_.layers[block_.index];
  if (a_.position == PositionKind::rotary) {
    if (rotary_.size() > 64) rotary_.clear();  // texts of many lengths
    auto [it, fresh] = rotary_.try_emplace({layer.rope, seq_});
    if (fresh) it->second = rotary_table(a_.ropes[layer.rope], seq_, x.device());
    q = apply_rotary(q, it->second, seq_);
    k = apply_rotary(k, it->second, seq_);
  }
  AttentionSpec spec;
  spec.scale = a_.attention_scale;
  spec.softcap = a_.attention_softcap;
  spec.window = layer.window;
  spec.alibi = alibi_;
  spec.round_alibi = a_.position == PositionKind::alibi_scaled;
  auto batched = [&](const at::Tensor& t) { return t.unflatten(0, {batch_, seq_}); };
  const at::Tensor context = attention(batched(q), batched(k), batched(v), spec).view({tokens, a_.heads * d});
  return multiply(linear_of(LinearRole::o), context);
}

at::Tensor BlockForward::gated(const Linear& gate, const Linear& up, const Linear& down, const at::Tensor& x) const {
  at::Tensor g = multiply(gate, x);
  const at::Tensor u = multiply(up, x);
  return multiply(down, activate_gated(std::move(g), u, a_.activation));
}

at::Tensor BlockForward::dense_mlp(const at::Tensor& x) const {
  if (!a_.names.gate_up.empty()) {
    const at::Tensor both = multiply(linear_of(LinearRole::gate_up), x);
    const int64_t inner = both.size(1) / 2;
    return multiply(linear_of(LinearRole::down), activate_gated(both.narrow(1, 0, inner), both.narrow(1, inner, inner), a_.activation).contiguous());
  }
  if (a_.gated) return gated(linear_of(LinearRole::gate), linear_of(LinearRole::up), linear_of(LinearRole::down), x);
  return multiply(linear_of(LinearRole::down), activate(multiply(linear_of(LinearRole::up), x), a_.activation));
}

at::Tensor BlockForward::mixture(const at::Tensor& x) const {
  const at::Tensor scores = at::softmax(at::linear(x, block_.others.at(a_.names.router + ".weight").to(held_)).to(at::kFloat), -1);
  auto [weights, experts] = at::topk(scores, a_.experts_per_token, -1);
  if (a_.normalise_expert_weights) weights = weights / weights.sum(-1, true);

  const Linear* first = &linear_of(LinearRole::expert_gate);  // expert e: gate, up, down at first[3e …]
  at::Tensor out = at::zeros_like(x);
  for (int64_t e = 0; e < a_.experts; ++e) {
    const at::Tensor chosen = (experts == e).nonzero();  // [n, 2]: token, rank
    if (chosen.size(0) == 0) continue;
    const at::Tensor token = chosen.select(1, 0), rank = chosen.select(1, 1);
    const at::Tensor y = gated(first[3 * e], first[3 * e + 1], first[3 * e + 2], x.index_select(0, token));
    out.index_add_(0, token, y * weights.index({token, rank}).to(held_).unsqueeze(1));
  }
  if (a_.shared_intermediate_size > 0) {
    const at::Tensor share = at::sigmoid(at::linear(x, block_.others.at(a_.names.shared_router + ".weight").to(held_)));
    out.add_(gated(linear_of(LinearRole::shared_gate), linear_of(LinearRole::shared_up), linear_of(LinearRole::shared_down), x).mul_(share));
  }
  return out;
}

at::Tensor BlockForward::mlp(const at::Tensor& x) const { return a_.layers[block_.index].experts ? mixture(x) : dense_mlp(x); }

at::Tensor BlockForward::run(const at::Tensor& hidden) {
  batch_ = hidden.size(0), seq_ = hidden.size(1);
  const NameTable& n = a_.names;
  const at::Tensor x = hidden.reshape({batch_ * seq_, a_.hidden_size}).to(held_).contiguous();
  auto scaled = [&](at::Tensor y) { return a_.residual_scale == 1 ? y : y.mul_(a_.residual_scale); };

  const at::Tensor normed = a_.norm_after ? x : norm(n.input_norm, x);
  at::Tensor attended = attend(normed);
  if (!n.post_attention_norm.empty()) attended = norm(n.post_attention_norm, attended);

  at::Tensor out;
  if (a_.parallel) {
    const at::Tensor input = n.mlp_norm.empty() ? normed : norm(n.mlp_norm, x);
    out = mlp(input).add_(attended).add_(x);
  } else {
    at::Tensor middle = scaled(std::move(attended)).add_(a_.residual_after_norm ? normed : x);
    if (a_.norm_after) middle = norm(n.input_norm, middle);
    const at::Tensor input = a_.norm_after ? middle : norm(n.mlp_norm, middle);
    out = mlp(input);
    if (!n.post_mlp_norm.empty()) out = norm(n.post_mlp_norm, out);
    out = scaled(std::move(out)).add_(a_.residual_after_norm ? input : middle);
    if (a_.norm_after) out = norm(n.mlp_norm, out);
  }
  return out.view({batch_, seq_, a_.hidden_size});
}

}  // namespace qb
