#include "core/model/rotary.h"

#include "core/model/kernels.h"

#include <ATen/Parallel.h>

#include <cmath>
#include <numbers>

namespace qb {
namespace {

// Frequencies are computed in double and rounded once; the reference computes in float32, which differs by an ulp.
std::vector<double> plain_frequencies(double theta, int64_t dim) {
  std::vector<double> f(dim / 2);
  for (int64_t i = 0; i < dim / 2; ++i) f[i] = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(dim));
  return f;
}

// YaRN, arXiv 2309.00071: interpolate slow dimensions, keep fast ones, a ramp between.
void scale_yarn(std::vector<double>& f, const RopeSpec& rope) {
  const double dim = static_cast<double>(rope.dim), context = static_cast<double>(rope.original_context);
  auto correction = [&](double rotations) { return dim * std::log(context / (rotations * 2 * std::numbers::pi)) / (2 * std::log(rope.theta)); };
  double low = correction(rope.beta_fast), high = correction(rope.beta_slow);
  if (rope.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0), high = std::min(high, dim - 1);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < f.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    f[i] = f[i] / rope.factor * ramp + f[i] * (1 - ramp);
  }
}

// Llama 3.1: long wavelengths are divided by the factor, short ones kept, a smooth step between.
void scale_llama3(std::vector<double>& f, const RopeSpec& rope) {
  const double context = static_cast<double>(rope.original_context);
  for (double& frequency : f) {
    const double wavelength = 2 * std::numbers::pi / frequency;
    if (wavelength < context / rope.high_freq_factor) continue;
    if (wavelength > context / rope.low_freq_factor) {
      frequency /= rope.factor;
      continue;
    }
    const double smooth = (context / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
    frequency = (1 - smooth) * frequency / rope.factor + smooth * frequency;
  }
}

template <typename T>
void rotate_rows(T* data, int64_t token_stride, int64_t head_stride, int64_t heads, int64_t half, bool interleaved, const float* cos,
                 const float* sin, int64_t seq_len, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const float* c = cos + (t % seq_len) * half;
    const float* s = sin + (t % seq_len) * half;
    for (int64_t h = 0; h < heads; ++h) {
      T* x = data + t * token_stride + h * head_stride;
      if (interleaved) {
        for (int64_t i = 0; i < half; ++i) {
          const float a = static_cast<float>(x[2 * i]), b = static_cast<float>(x[2 * i + 1]);
          x[2 * i] = static_cast<T>(a * c[i] - b * s[i]);
          x[2 * i + 1] = static_cast<T>(b * c[i] + a * s[i]);
        }
        continue;
      }
      for (int64_t i = 0; i < half; ++i) {
        const float a = static_cast<float>(x[i]), b = static_cast<float>(x[i + half]);
        x[i] = static_cast<T>(a * c[i] - b * s[i]);
        x[i + half] = static_cast<T>(b * c[i] + a * s[i]);
      }
    }
  }
}

}  // namespace

std::vector<double> rotary_frequencies(const RopeSpec& rope, int64_t seq_len) {
  double theta = rope.theta;
  if (rope.kind == RopeSpec::Kind::dynamic && seq_len > rope.original_context) {
    const double ratio = static_cast<double>(seq_len) / static_cast<double>(rope.original_context), dim = static_cast<double>(rope.dim);
    theta *= std::pow(rope.factor * ratio - (rope.factor - 1), dim / (dim - 2));
  }
  std::vector<double> f = plain_frequencies(theta, rope.dim);
  switch (rope.kind) {
    case RopeSpec::Kind::linear:
      for (double& x : f) x /= rope.factor;
      break;
    case RopeSpec::Kind::llama3: scale_llama3(f, rope); break;
    case RopeSpec::Kind::yarn: scale_yarn(f, rope); break;
    case RopeSpec::Kind::longrope:
    case RopeSpec::Kind::divisors: {
      const bool longer = rope.kind == RopeSpec::Kind::longrope && seq_len > rope.original_context;
      const auto& divisors = longer ? rope.long_factor : rope.short_factor;
      for (size_t i = 0; i < f.size(); ++i) f[i] /= divisors[i];
      break;
    }
    default: break;
  }
  return f;
}

double rotary_magnitude(const RopeSpec& rope, int64_t seq_len) {
  return rope.long_attention_factor > 0 && seq_len > rope.original_context ? rope.long_attention_factor : rope.attention_factor;
}

RotaryTable rotary_table(const RopeSpec& rope, int64_t seq_len, at::Device device) {
  const std::vector<double> f = rotary_frequencies(rope, seq_len);
  const int64_t half = rope.dim / 2;
  const double magnitude = rotary_magnitude(rope, seq_len);
  RotaryTable table{at::empty({seq_len, half}, at::kFloat), at::empty({seq_len, half}, at::kFloat)};
  float* cos = table.cos.data_ptr<float>();
  float* sin = table.sin.data_ptr<float>();
  at::parallel_for(0, seq_len, 256, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      for (int64_t i = 0; i < half; ++i) {
        // The angle is a float32 product, as in every reference implementation.
        const float angle = static_cast<float>(t) * static_cast<float>(f[i]);
        cos[t * half + i] = static_cast<float>(std::cos(static_cast<double>(angle)) * magnitude);
        sin[t * half + i] = static_cast<float>(std::sin(static_cast<double>(angle)) * magnitude);
      }
  });
  table.cos = table.cos.to(device);
  table.sin = table.sin.to(device);
  return table;
}

at::Tensor apply_rotary(at::Tensor x, const RotaryTable& table, int64_t seq_len, bool interleaved) {
  const int64_t half = table.cos.size(1), tokens = x.size(0), heads = x.size(1);
  if (x.is_cpu() && x.stride(2) == 1 && !learns(x)) {
    const float* cos = table.cos.const_data_ptr<float>();
    const float* sin = table.sin.const_data_ptr<float>();
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, x.scalar_type(), "apply_rotary", [&] {
      scalar_t* data = x.mutable_data_ptr<scalar_t>();
      at::parallel_for(0, tokens, 64, [&](int64_t begin, int64_t end) {
        rotate_rows(data, x.stride(0), x.stride(1), heads, half, interleaved, cos, sin, seq_len, begin, end);
      });
    });
    return x;
  }
  const int64_t batch = tokens / seq_len;
  const at::Tensor cos = table.cos.repeat({batch, 1}).unsqueeze(1), sin = table.sin.repeat({batch, 1}).unsqueeze(1);
  at::Tensor a = interleaved ? x.slice(2, 0, 2 * half, 2) : x.narrow(2, 0, half);
  at::Tensor b = interleaved ? x.slice(2, 1, 2 * half, 2) : x.narrow(2, half, half);
  const at::Tensor fa = a.to(at::kFloat), fb = b.to(at::kFloat);
  const at::Tensor ra = fa * cos - fb * sin, rb = fb * cos + fa * sin;
  if (learns(x)) {
    const at::Tensor na = ra.to(x.scalar_type()), nb = rb.to(x.scalar_type());
    const at::Tensor rotated = interleaved ? at::stack({na, nb}, 3).flatten(2) : at::cat({na, nb}, 2);
    return at::cat({rotated, x.narrow(2, 2 * half, x.size(2) - 2 * half)}, 2);
  }
  a.copy_(ra);
  b.copy_(rb);
  return x;
}

}  // namespace qb
