#include "core/model/router.h"

#include <limits>

namespace qb {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

// PhiMoE's sparse mixer without its noise: the best expert weighs what a softmax over those near it gives; then the same
// without it for the second.
std::pair<at::Tensor, at::Tensor> sparse_mixer(const at::Tensor& logits, double jitter) {
  auto one = [&](const at::Tensor& from) {
    const auto [best, index] = from.max(-1, true);
    const at::Tensor far = ((best - logits) / at::maximum(logits.abs(), best)) > 2 * jitter;
    return std::pair{at::softmax(from.masked_fill(far, kNever), -1).gather(-1, index), index};
  };
  const auto [first, first_index] = one(logits);
  const auto [second, second_index] = one(logits.scatter(-1, first_index, kNever));
  return {at::cat({first, second}, -1), at::cat({first_index, second_index}, -1)};
}

}  // namespace

std::pair<at::Tensor, at::Tensor> route(const at::Tensor& logits, const RouterOp& router, const at::Tensor& choice_bias) {
  if (router.score == RouterScore::sparse_mixer) return sparse_mixer(logits, router.jitter);
  const at::Tensor scores = router.score == RouterScore::sigmoid ? at::sigmoid(logits) : at::softmax(logits, -1);
  // Sigmoids of large logits are all one: without a bias the logits themselves choose.
  const bool by_logits = router.score == RouterScore::sigmoid && !choice_bias.defined() && router.groups == 1;
  at::Tensor choice = choice_bias.defined() ? scores + choice_bias.to(at::kFloat).reshape({-1}) : by_logits ? logits : scores;
  if (router.groups > 1 && router.used_groups < router.groups) {
    const at::Tensor members = choice.unflatten(-1, {router.groups, -1});
    const at::Tensor worth = router.group_by_two ? std::get<0>(members.topk(2, -1)).sum(-1) : members.amax(-1);
    const at::Tensor used = at::zeros_like(worth, at::kBool).scatter_(-1, std::get<1>(worth.topk(router.used_groups, -1)), true);
    choice = members.masked_fill(used.logical_not().unsqueeze(-1), kNever).flatten(-2);
  }
  at::Tensor weights, experts;
  if (choice.is_same(scores)) {
    std::tie(weights, experts) = at::topk(scores, router.per_token, -1);
  } else {
    experts = std::get<1>(at::topk(choice, router.per_token, -1));
    weights = scores.gather(-1, experts);
  }
  if (router.normalise) {
    at::Tensor sum = weights.sum(-1, true);
    if (router.normalise_eps > 0) sum = sum + router.normalise_eps;
    if (router.normalise_eps < 0) sum = sum.clamp_min(-router.normalise_eps);
    weights = weights / sum;
  }
  if (router.scale != 1) weights = weights * router.scale;
  return {weights, experts};
}

}  // namespace qb
