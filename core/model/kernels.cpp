#include "core/model/kernels.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include "core/base/cpu.h"

namespace qb {

at::Tensor linear_product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  // Of fewer tokens, or smaller matrices, widening the weights would take longer than it saves.
  constexpr int64_t kTokens = 128, kWeights = 1 << 14, kWidened = 1 << 22;
  if (!x.is_cpu() || x.scalar_type() != at::kBFloat16 || x.dim() != 2 || x.size(0) < kTokens || weight.numel() < kWeights || !float32_products_are_faster()) return at::linear(x, weight, bias);
  if (c10::GradMode::is_enabled()) return at::linear(x.to(at::kFloat), weight.to(at::kFloat), bias.defined() ? bias.to(at::kFloat) : bias).to(at::kBFloat16);
  const int64_t tokens = x.size(0), in = weight.size(1), out = weight.size(0), step = std::min(out, std::max<int64_t>(256, kWidened / in));
  const auto options = x.options().dtype(at::kFloat);
  const at::Tensor wide = x.to(at::kFloat), rows = at::empty({step, in}, options), products = at::empty({step * tokens}, options);
  at::Tensor result = at::empty({tokens, out}, x.options());
  for (int64_t first = 0; first < out; first += step) {
    const int64_t count = std::min(step, out - first);
    at::Tensor widened = rows.narrow(0, 0, count), part = products.narrow(0, 0, count * tokens).view({tokens, count});
    widened.copy_(weight.narrow(0, first, count));
    at::mm_out(part, wide, widened.t());
    if (bias.defined()) part.add_(bias.narrow(0, first, count));
    result.narrow(1, first, count).copy_(part);
  }
  return result;
}

bool learns(const at::Tensor& x) { return x.defined() && c10::GradMode::is_enabled() && x.requires_grad(); }

namespace {

at::Tensor activation_of(const at::Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::silu: return at::silu(x);
    case Activation::gelu: return at::gelu(x);
    case Activation::gelu_tanh: return at::gelu(x, "tanh");
    case Activation::quick_gelu: return x * at::sigmoid(1.702 * x);
    case Activation::relu: return at::relu(x);
    case Activation::relu_squared: return at::relu(x).square();
    case Activation::clamped_swiglu: break;  // of a gate and its product: activate_gated
  }
  return x;
}

// One norm, whatever the row. weight and bias: [size] or null.
struct RowNorm {
  int64_t size;
  bool layer, plus_one;
  float eps;
  const float *weight, *bias;

  void operator()(const float* x, float* y) const {
    float mean = 0;
    if (layer) {
      double sum = 0;
      for (int64_t i = 0; i < size; ++i) sum += x[i];
      mean = static_cast<float>(sum / static_cast<double>(size));
    }
    // Eight partial sums, so that the compiler may use vectors without reordering a sum.
    float partial[8] = {};
    int64_t i = 0;
    for (; i + 8 <= size; i += 8)
      for (int64_t j = 0; j < 8; ++j) partial[j] += (x[i + j] - mean) * (x[i + j] - mean);
    for (; i < size; ++i) partial[0] += (x[i] - mean) * (x[i] - mean);
    float variance = 0;
    for (float p : partial) variance += p;
    const float scale = 1 / std::sqrt(variance / static_cast<float>(size) + eps);
    const float one = plus_one ? 1.f : 0.f;
    if (!weight) {
      for (i = 0; i < size; ++i) y[i] = (x[i] - mean) * scale;
    } else if (bias) {
      for (i = 0; i < size; ++i) y[i] = (x[i] - mean) * scale * (weight[i] + one) + bias[i];
    } else {
      for (i = 0; i < size; ++i) y[i] = (x[i] - mean) * scale * (weight[i] + one);
    }
  }
};

template <typename T>
void normalise_rows(const T* in, T* out, int64_t rows, const RowNorm& norm) {
  const int64_t size = norm.size;
  at::parallel_for(0, rows, 64, [&](int64_t begin, int64_t end) {
    std::vector<float> row(size);
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t i = 0; i < size; ++i) row[i] = static_cast<float>(in[r * size + i]);
      norm(row.data(), row.data());
      for (int64_t i = 0; i < size; ++i) out[r * size + i] = static_cast<T>(row[i]);
    }
  });
}

const float* data_or_null(const at::Tensor& x) { return x.defined() ? x.const_data_ptr<float>() : nullptr; }
at::Tensor as_float(const at::Tensor& x) { return x.defined() ? x.to(at::kFloat).contiguous() : x; }

}  // namespace

at::Tensor normalise(const at::Tensor& x, NormKind kind, double eps, const at::Tensor& weight, const at::Tensor& bias) {
  const int64_t size = x.size(-1);
  const bool layer = is_layer_norm(kind);
  if (x.is_cpu() && x.is_contiguous() && !learns(x) && !learns(weight) && !learns(bias)) {
    const at::Tensor w = as_float(weight), b = as_float(bias);
    at::Tensor y = at::empty_like(x);
    const RowNorm row{size, layer, is_plus_one(kind), static_cast<float>(eps), data_or_null(w), data_or_null(b)};
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, x.scalar_type(), "normalise", [&] {
      normalise_rows(x.const_data_ptr<scalar_t>(), y.mutable_data_ptr<scalar_t>(), x.numel() / size, row);
    });
    return y;
  }
  at::Tensor f = x.to(at::kFloat);
  if (layer) f = f - f.mean(-1, true);
  f = f * at::rsqrt(f.square().mean(-1, true) + eps);
  if (weight.defined()) f = f * (is_plus_one(kind) ? weight.to(at::kFloat) + 1 : weight.to(at::kFloat));
  if (bias.defined()) f = f + bias.to(at::kFloat);
  return f.to(x.scalar_type());
}

at::Tensor normalise_heads(at::Tensor x, NormKind kind, double eps, const at::Tensor& weight, const at::Tensor& bias) {
  at::Tensor f = x.to(at::kFloat);
  if (is_layer_norm(kind)) f = f - f.mean(-1, true);
  f = f * at::rsqrt(f.square().mean(-1, true) + eps);
  if (weight.defined()) f = f * (is_plus_one(kind) ? weight.to(at::kFloat) + 1 : weight.to(at::kFloat));
  if (bias.defined()) f = f + bias.to(at::kFloat);
  return learns(x) ? f.to(x.scalar_type()) : x.copy_(f);
}

at::Tensor activate_gated(at::Tensor gate, const at::Tensor& up, Activation activation) {
  if (activation == Activation::clamped_swiglu) {
    // gpt-oss: gates up to 7, factors between −7 and 7, one more than the factor.
    const at::Tensor g = gate.clamp_max(7), u = up.clamp(-7, 7);
    return (u + 1) * (g * at::sigmoid(g * 1.702));
  }
  if (learns(gate) || learns(up)) return activation_of(gate, activation) * up;
  if (activation == Activation::silu) return at::silu_(gate).mul_(up);
  return activation_of(gate, activation).mul_(up);
}

at::Tensor activate(const at::Tensor& x, Activation activation) { return activation_of(x, activation); }

}  // namespace qb
