#include "core/model/delta_rule.h"

namespace qb {
namespace {

constexpr int64_t kChunk = 64;  // tokens whose effects on each other are solved at once

}  // namespace

at::Tensor causal_convolution(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const int64_t seq = x.size(1), kernel = weight.size(2);
  const at::Tensor taps = weight.squeeze(1).t().contiguous();  // [kernel, channels]
  at::Tensor sum = x * taps[kernel - 1];
  for (int64_t back = 1; back < std::min(kernel, seq); ++back)
    sum.narrow(1, back, seq - back).addcmul_(x.narrow(1, 0, seq - back), taps[kernel - 1 - back]);
  return bias.defined() ? sum.add_(bias) : sum;
}

// With decays γ_t = exp(Σ g) inside a chunk, the updates δ of its tokens solve a unit lower triangular system:
// δ_t = β_t·(v_t − γ_t·S₀ᵀk_t − Σ_{s<t} (γ_t/γ_s)·(k_t·k_s)·δ_s), and o_t = γ_t·S₀ᵀq_t + Σ_{s≤t} (γ_t/γ_s)·(q_t·k_s)·δ_s.
at::Tensor gated_delta_rule(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& b, const at::Tensor& a, const at::Tensor& decay,
                            const at::Tensor& step) {
  const int64_t seq = v.size(1), heads = v.size(2), ratio = heads / q.size(2), key_dim = q.size(3);
  auto normalised = [&](const at::Tensor& x) {
    const at::Tensor f = x.to(at::kFloat);
    return (f * at::rsqrt(f.square().sum(-1, true) + 1e-6)).transpose(1, 2).repeat_interleave(ratio, 1).contiguous();  // [batch, heads, seq, key_dim]
  };
  const at::Tensor qn = normalised(q) * (1 / std::sqrt(static_cast<double>(key_dim))), kn = normalised(k), vf = v.to(at::kFloat).transpose(1, 2).contiguous();
  const at::Tensor beta = at::sigmoid(b.to(at::kFloat)).transpose(1, 2);  // [batch, heads, seq]
  const at::Tensor g = (-decay.to(at::kFloat).exp() * at::softplus(a.to(at::kFloat) + step.to(at::kFloat))).transpose(1, 2);
  at::Tensor state = at::zeros({v.size(0), heads, key_dim, v.size(3)}, vf.options());
  std::vector<at::Tensor> outputs;
  for (int64_t begin = 0; begin < seq; begin += kChunk) {
    const int64_t count = std::min(kChunk, seq - begin);
    auto part = [&](const at::Tensor& x) { return x.narrow(2, begin, count); };
    const at::Tensor qc = part(qn), kc = part(kn), vc = part(vf), bc = part(beta).unsqueeze(-1);
    // Sums of hundreds a token and their differences: in float64, so that tokens behind a great decay are not blurred by it.
    const at::Tensor log_decay = part(g).to(at::kDouble).cumsum(-1), whole = log_decay.exp().to(at::kFloat).unsqueeze(-1);
    // γ_t/γ_s for s ≤ t; above the diagonal it would overflow.
    const at::Tensor between = (log_decay.unsqueeze(-1) - log_decay.unsqueeze(-2)).tril().to(at::kFloat).exp().tril();
    const at::Tensor system = bc * kc.matmul(kc.transpose(-1, -2)) * between;  // its lower triangle counts; the diagonal is taken as one
    const at::Tensor right = bc * (vc - whole * kc.matmul(state));
    const at::Tensor delta = at::linalg_solve_triangular(system.tril(-1) + at::eye(count, system.options()), right, /*upper=*/false, /*left=*/true, /*unitriangular=*/true);
    outputs.push_back(whole * qc.matmul(state) + (qc.matmul(kc.transpose(-1, -2)) * between).matmul(delta));
    const at::Tensor last = log_decay.narrow(-1, count - 1, 1).unsqueeze(-1);  // [batch, heads, 1, 1]
    state = last.exp().to(at::kFloat) * state + (kc * (last - log_decay.unsqueeze(-1)).exp().to(at::kFloat)).transpose(-1, -2).matmul(delta);
  }
  return at::cat(outputs, 2).transpose(1, 2).to(v.scalar_type()).contiguous();
}

}  // namespace qb
