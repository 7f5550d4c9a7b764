#include "core/model/hadamard.h"

#include <cmath>
#include <map>
#include <mutex>

#include "core/base/error.h"

namespace qb {
namespace {

bool is_prime(int64_t n) {
  if (n < 2) return false;
  for (int64_t d = 2; d * d <= n; ++d)
    if (n % d == 0) return false;
  return true;
}

// Jacobsthal's matrix of a prime q: entry (i, j) is 1 when i − j is a square, −1 when not, 0 on the diagonal.
at::Tensor jacobsthal(int64_t q) {
  std::vector<double> character(static_cast<size_t>(q), -1);
  character[0] = 0;
  for (int64_t a = 1; a < q; ++a) character[static_cast<size_t>(a * a % q)] = 1;
  at::Tensor m = at::empty({q, q}, at::kDouble);
  auto* out = m.data_ptr<double>();
  for (int64_t i = 0; i < q; ++i)
    for (int64_t j = 0; j < q; ++j) out[i * q + j] = character[static_cast<size_t>((i - j + q) % q)];
  return m;
}

// Paley 1933. Order m itself, no powers of two split off.
std::optional<at::Tensor> paley(int64_t m) {
  if (m == 1) return at::ones({1, 1}, at::kDouble);
  if (const int64_t q = m - 1; q % 4 == 3 && is_prime(q)) {
    at::Tensor s = at::zeros({m, m}, at::kDouble);  // skew: H = I + S
    s[0].slice(0, 1).fill_(1);
    s.select(1, 0).slice(0, 1).fill_(-1);
    s.slice(0, 1).slice(1, 1).copy_(jacobsthal(q));
    return at::eye(m, at::kDouble) + s;
  }
  if (const int64_t q = m / 2 - 1; m % 2 == 0 && q % 4 == 1 && is_prime(q)) {
    at::Tensor c = at::zeros({q + 1, q + 1}, at::kDouble);  // symmetric conference matrix
    c[0].slice(0, 1).fill_(1);
    c.select(1, 0).slice(0, 1).fill_(1);
    c.slice(0, 1).slice(1, 1).copy_(jacobsthal(q));
    const at::Tensor ones = at::tensor({1., 1., 1., -1.}, at::kDouble).view({2, 2}), mixed = at::tensor({1., -1., -1., -1.}, at::kDouble).view({2, 2});
    return at::kron(c, ones) + at::kron(at::eye(q + 1, at::kDouble), mixed);
  }
  return std::nullopt;
}

struct Factors {
  int64_t doublings = 0;  // n = 2^doublings · core's order
  at::Tensor core;
};

const Factors* factors_of(int64_t n) {
  static std::mutex mutex;
  static std::map<int64_t, std::optional<Factors>> known;
  const std::lock_guard lock(mutex);
  auto [it, fresh] = known.try_emplace(n);
  if (fresh && n > 0) {
    // The smallest order that Paley gives, the rest by doubling.
    int64_t core = n, doublings = 0;
    while (core % 2 == 0) core /= 2, ++doublings;
    for (int64_t left = doublings, m = core; left >= 0; --left, m *= 2)
      if (auto matrix = paley(m)) {
        it->second = Factors{left, *matrix};
        break;
      }
  }
  return it->second ? &*it->second : nullptr;
}

}  // namespace

std::optional<at::Tensor> hadamard_matrix(int64_t n) {
  const Factors* f = factors_of(n);
  if (!f) return std::nullopt;
  at::Tensor h = f->core;
  const at::Tensor two = at::tensor({1., 1., 1., -1.}, at::kDouble).view({2, 2});
  for (int64_t i = 0; i < f->doublings; ++i) h = at::kron(two, h);
  return h;
}

at::Tensor apply_hadamard(const at::Tensor& x) {
  const int64_t n = x.size(-1);
  const Factors* f = factors_of(n);
  if (!f) throw InternalError("no Hadamard matrix of order " + std::to_string(n));
  // x·(S ⊗ C) with Sylvester's S: butterflies over the outer factor, one product over the inner.
  at::Tensor y = x.reshape({-1, n});
  const int64_t m = f->core.size(0), rows = y.size(0);
  for (int64_t span = m; span < n; span *= 2) {
    const at::Tensor pairs = y.reshape({rows, n / (2 * span), 2, span});
    const at::Tensor a = pairs.select(2, 0), b = pairs.select(2, 1);
    y = at::stack({a + b, a - b}, 2).reshape({rows, n});
  }
  if (m > 1) y = y.reshape({rows, n / m, m}).matmul(f->core.to(x.options())).reshape({rows, n});
  return (y / std::sqrt(static_cast<double>(n))).reshape(x.sizes());
}

}  // namespace qb
