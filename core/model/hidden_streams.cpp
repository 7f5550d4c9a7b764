#include "core/model/hidden_streams.h"

#include "core/model/architecture.h"

namespace qb {

namespace {

constexpr int64_t kBase = 256;

at::Tensor mean_square(const at::Tensor& x) { return x.square().mean(-1, true); }

}  // namespace

at::Tensor token_digits(const at::Tensor& ids, at::ScalarType dtype) {
  std::vector<at::Tensor> digits;
  at::Tensor rest = ids.reshape({-1});
  for (int64_t i = 0; i < kTokenDigits; ++i) {
    digits.push_back(rest.remainder(kBase));
    rest = rest.div(kBase, "floor");
  }
  return at::stack(digits, 1).to(dtype);
}

at::Tensor token_ids(const at::Tensor& digits) {
  const at::Tensor whole = digits.detach().to(at::kLong);
  at::Tensor ids = at::zeros({whole.size(0)}, whole.options());
  for (int64_t i = kTokenDigits; i-- > 0;) ids = ids * kBase + whole.select(1, i);
  return ids;
}

at::Tensor as_large_as(const at::Tensor& x, const at::Tensor& first) {
  constexpr double kSmallest = 1e-5;  // transformers'
  return x * mean_square(first).sqrt() / mean_square(x).clamp_min(kSmallest).sqrt();
}

}  // namespace qb
