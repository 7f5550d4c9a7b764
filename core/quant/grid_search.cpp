#include "core/quant/grid_search.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "core/base/cpu_clones.h"
#include "core/format/iq4_nl.h"

namespace qb {
namespace {

constexpr int kMostUnit = 32, kMostUnits = 16;  // weights a unit, units a super-block
constexpr float kInfinite = std::numeric_limits<float>::infinity();

// ---- the nearest code to a quotient ----

struct Integers {
  float low, high;
  float operator()(float x) const { return std::min(std::max(std::nearbyint(x), low), high); }
};

struct Floats {
  float smallest;  // step of the subnormals
  float fraction;  // step / power of two below a number
  float high;
  float operator()(float x) const {
    const float power = std::bit_cast<float>(std::bit_cast<uint32_t>(x) & 0x7f800000u);
    const float step = std::max(power * fraction, smallest);
    return std::min(std::max(std::nearbyint(x / step) * step, -high), high);
  }
};

struct Levels {
  float operator()(float x) const {
    float level = static_cast<float>(kIq4Levels[0]);
    for (int i = 1; i < 16; ++i)
      level += 2 * x > static_cast<float>(kIq4Levels[i] + kIq4Levels[i - 1]) ? static_cast<float>(kIq4Levels[i] - kIq4Levels[i - 1]) : 0.0f;
    return level;
  }
};

// ---- what scales are stored in ----

// float16 by its bits: the sums of c10::Half's conversion may not be taken in another order, as they may here.
float half(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x), sign = bits & 0x80000000u;
  uint32_t size = bits ^ sign;
  if (size < 0x38800000u) return std::copysign(std::nearbyint(std::abs(x) * 16777216.0f) / 16777216.0f, x);  // subnormal
  if (size < 0x7f800000u) size = (size + 0xfffu + (size >> 13 & 1)) & ~0x1fffu;
  if (size >= 0x47800000u && size < 0x7f800000u) size = 0x7f800000u;
  return std::bit_cast<float>(size | sign);
}

float half_scale(float x) {
  constexpr float kSmallest = 5.9604645e-8f;  // anything below would round to zero
  return std::abs(x) < kSmallest ? std::copysign(kSmallest, x) : half(x);
}

struct Stored {
  ScaleType type;
  float factor;
  float operator()(float x) const {
    switch (type) {
      case ScaleType::f16: return half_scale(x);
      case ScaleType::e8m0: return std::exp2(std::clamp(std::round(std::log2(std::abs(x))), -126.0f, 127.0f));
      case ScaleType::e4m3: {
        constexpr float kSmallest = 1.0f / 512;
        return std::max(Floats{kSmallest, 1.0f / 8, 448}(std::abs(x) / factor), kSmallest) * factor;
      }
      default: return x;
    }
  }
};

// ---- units with a scale alone ----

struct Fit {
  float error = kInfinite, scale = 0;  // the best scale for these codes
};

template <class Code>
[[gnu::always_inline]] inline Fit fit(const float* x, const float* w, int n, float scale, Code code) {
  const float inverse = 1 / scale;
  float error = 0, xq = 0, qq = 0;
  for (int i = 0; i < n; ++i) {
    const float q = code(x[i] * inverse), e = x[i] - q * scale;
    error += w[i] * e * e;
    xq += w[i] * x[i] * q;
    qq += w[i] * q * q;
  }
  return {error, qq > 0 ? xq / qq : scale};
}

struct Shape {
  float from, to;  // the largest weight becomes a code between these
  int steps;
  bool both;       // scales of either sign: codes reach further on one side
};

template <class Code, class Store>
[[gnu::always_inline]] inline float unit_scale(const float* x, const float* w, int n, Code code, Store store, const Shape& shape) {
  float top = 0;
  for (int i = 0; i < n; ++i) top = std::max(top, std::abs(x[i]));
  if (top == 0) return 0;
  float best = 0, least = kInfinite;
  auto consider = [&](float scale) __attribute__((always_inline)) {
    for (int i = 0; i < 2; ++i) {
      const float stored = store(scale);
      if (stored == 0 || !std::isfinite(stored)) return;
      const Fit f = fit(x, w, n, stored, code);
      if (f.error < least) {
        least = f.error;
        best = stored;
      }
      scale = f.scale;
    }
  };
  for (int side = shape.both ? -1 : 1; side <= 1; side += 2)
    for (int k = 0; k <= shape.steps; ++k)
      consider(static_cast<float>(side) * top / (shape.from + (shape.to - shape.from) * static_cast<float>(k) / static_cast<float>(shape.steps)));
  if (best == 0) return store(top / shape.from);  // too large for what scales are stored in: the caller sees that it is not finite
  consider(best);
  return best;
}

// ---- units with a scale and a minimum ----

struct Line {
  float error = kInfinite, scale = 0, minimum = 0;  // the best two for these codes
};

// not_above: minima are at most zero.
[[gnu::always_inline]] inline Line fit_line(const float* x, const float* w, int n, float scale, float minimum, float high, bool not_above) {
  const float inverse = 1 / scale;
  float error = 0, sw = 0, sx = 0, sq = 0, xq = 0, qq = 0;
  for (int i = 0; i < n; ++i) {
    const float q = std::min(std::max(std::nearbyint((x[i] - minimum) * inverse), 0.0f), high), e = x[i] - q * scale - minimum;
    error += w[i] * e * e;
    sw += w[i];
    sx += w[i] * x[i];
    sq += w[i] * q;
    xq += w[i] * x[i] * q;
    qq += w[i] * q * q;
  }
  Line line{error, scale, minimum};
  const float determinant = sw * qq - sq * sq;
  if (determinant > 1e-6f * sw * qq) {
    line.scale = (sw * xq - sx * sq) / determinant;
    line.minimum = (qq * sx - sq * xq) / determinant;
  }
  if (not_above && line.minimum > 0) {
    line.minimum = 0;
    line.scale = qq > 0 ? xq / qq : scale;
  }
  if (!(line.scale > 0)) line = {error, scale, minimum};
  return line;
}

struct Pair {
  float scale = 0, minimum = 0;
};

template <class Store>
[[gnu::always_inline]] inline Pair unit_line(const float* x, const float* w, int n, int bits, bool not_above, Store store) {
  float low = x[0], high = x[0];
  for (int i = 1; i < n; ++i) {
    low = std::min(low, x[i]);
    high = std::max(high, x[i]);
  }
  if (not_above) low = std::min(low, 0.0f);
  if (!(high > low)) return {0, low};
  const float steps = static_cast<float>((1 << bits) - 1);
  Pair best{0, 0};
  float least = kInfinite;
  auto consider = [&](float scale, float minimum) __attribute__((always_inline)) {
    for (int i = 0; i < 2; ++i) {
      const Pair stored = store(Pair{scale, minimum});
      if (!(stored.scale > 0) || !std::isfinite(stored.scale) || !std::isfinite(stored.minimum)) return;
      const Line line = fit_line(x, w, n, stored.scale, stored.minimum, steps, not_above);
      if (line.error < least) {
        least = line.error;
        best = stored;
      }
      scale = line.scale;
      minimum = line.minimum;
    }
  };
  // Either end moves inwards, the further the fewer codes there are.
  constexpr int kEnds = 6;
  const float most = bits <= 2 ? 0.5f : bits == 4 ? 0.25f : 0.15f;
  const float middle = (low + high) / 2;
  for (int a = 0; a < kEnds; ++a)
    for (int b = 0; b < kEnds; ++b) {
      const float from = low + (middle - low) * most * static_cast<float>(a) / (kEnds - 1), to = high + (middle - high) * most * static_cast<float>(b) / (kEnds - 1);
      consider((to - from) / steps, from);
    }
  if (best.scale == 0) return {kInfinite, low};  // too large to be stored, as above
  for (int i = 0; i < 2; ++i) consider(best.scale, best.minimum);
  return best;
}

// ---- super-blocks ----

struct Block {
  float d = 1, dmin = 0;
  std::array<int, kMostUnits> scale{}, minimum{};
  float error = kInfinite;
};

// A block whose factor no float16 is large enough for: the caller sees that it is not finite.
Block beyond() {
  Block block;
  block.d = kInfinite;
  block.scale.fill(1);
  return block;
}

struct Limits {
  int units, n;  // of a super-block; weights a unit
  int low, high, minimum_high;
};

int kept_off_zero(float quotient, const Limits& limits) {
  const int q = std::clamp(static_cast<int>(std::lround(quotient)), limits.low, limits.high);
  return q != 0 ? q : quotient < 0 ? -1 : 1;
}


// Integers of each unit given the block's two factors: the nearest to what the unit would like, or one of their neighbours.
[[gnu::always_inline]] inline void choose_lines(const float* x, const float* w, const Limits& limits, float steps, const Pair* wanted, Block& block) {
  block.error = 0;
  for (int j = 0; j < limits.units; ++j) {
    const float *xs = x + j * limits.n, *ws = w + j * limits.n;
    int scale = kept_off_zero(wanted[j].scale / block.d, limits);
    int minimum = block.dmin > 0 ? std::clamp(static_cast<int>(std::lround(-wanted[j].minimum / block.dmin)), 0, limits.minimum_high) : 0;
    float least = kInfinite;
    int best_scale = scale, best_minimum = minimum;
    for (int round = 0; round < 2; ++round) {
      for (int s = std::max(scale - 1, limits.low); s <= std::min(scale + 1, limits.high); ++s)
        for (int m = std::max(minimum - 1, 0); m <= std::min(minimum + 1, block.dmin > 0 ? limits.minimum_high : 0); ++m) {
          const float error = fit_line(xs, ws, limits.n, block.d * static_cast<float>(s), -block.dmin * static_cast<float>(m), steps, true).error;
          if (error < least) {
            least = error;
            best_scale = s;
            best_minimum = m;
          }
        }
      if (best_scale == scale && best_minimum == minimum) break;
      scale = best_scale;
      minimum = best_minimum;
    }
    block.scale[static_cast<size_t>(j)] = best_scale;
    block.minimum[static_cast<size_t>(j)] = best_minimum;
    block.error += least;
  }
}

// The block's factors by least squares, codes and integers as they are.
[[gnu::always_inline]] inline Pair fit_block(const float* x, const float* w, const Limits& limits, float steps, const Block& block) {
  double aa = 0, ab = 0, bb = 0, xa = 0, xb = 0;
  for (int j = 0; j < limits.units; ++j) {
    const float integer = static_cast<float>(block.scale[static_cast<size_t>(j)]), b = -static_cast<float>(block.minimum[static_cast<size_t>(j)]);
    const float inverse = 1 / (block.d * integer), minimum = block.dmin * b;
    const float *xs = x + j * limits.n, *ws = w + j * limits.n;
    float saa = 0, sa = 0, sw = 0, sxa = 0, sx = 0;
    for (int i = 0; i < limits.n; ++i) {
      const float a = integer * std::min(std::max(std::nearbyint((xs[i] - minimum) * inverse), 0.0f), steps);
      saa += ws[i] * a * a;
      sa += ws[i] * a;
      sw += ws[i];
      sxa += ws[i] * xs[i] * a;
      sx += ws[i] * xs[i];
    }
    aa += saa;
    ab += sa * b;
    bb += sw * b * b;
    xa += sxa;
    xb += sx * b;
  }
  const double determinant = aa * bb - ab * ab;
  if (bb > 0 && determinant > 1e-9 * aa * bb) return {static_cast<float>((bb * xa - ab * xb) / determinant), static_cast<float>((aa * xb - ab * xa) / determinant)};
  return {aa > 0 ? static_cast<float>((xa - block.dmin * ab) / aa) : block.d, block.dmin};
}

[[gnu::always_inline]] inline Block line_block(const float* x, const float* w, const Limits& limits, int bits) {
  const float steps = static_cast<float>((1 << bits) - 1);
  std::array<Pair, kMostUnits> wanted{};
  float scale = 0, minimum = 0;
  for (int j = 0; j < limits.units; ++j) {
    wanted[static_cast<size_t>(j)] = unit_line(x + j * limits.n, w + j * limits.n, limits.n, bits, true, [](Pair p) { return p; });
    scale = std::max(scale, wanted[static_cast<size_t>(j)].scale);
    minimum = std::max(minimum, -wanted[static_cast<size_t>(j)].minimum);
  }
  Block best;
  if (scale == 0 && minimum == 0) {
    best.scale.fill(1);
    return best;
  }
  if (scale == 0) scale = minimum / steps;  // units of one value each
  const int starts = bits <= 2 ? 4 : 2;
  for (int k = 0; k < starts; ++k) {
    const float share = 1 - 0.1f * static_cast<float>(k);
    Block block;
    block.d = half_scale(scale / (share * static_cast<float>(limits.high)));
    block.dmin = half(minimum / (share * static_cast<float>(limits.minimum_high)));
    std::array<Pair, kMostUnits> aim = wanted;
    for (int round = 0; round < 3; ++round) {
      choose_lines(x, w, limits, steps, aim.data(), block);
      if (block.error < best.error) best = block;
      const Pair fitted = fit_block(x, w, limits, steps, block);
      const float d = half_scale(fitted.scale), dmin = half(std::max(fitted.minimum, 0.0f));
      if (!(d > 0) || (d == block.d && dmin == block.dmin)) break;
      for (int j = 0; j < limits.units; ++j)
        aim[static_cast<size_t>(j)] = {d * static_cast<float>(block.scale[static_cast<size_t>(j)]), -dmin * static_cast<float>(block.minimum[static_cast<size_t>(j)])};
      block.d = d;
      block.dmin = dmin;
    }
  }
  return best.error < kInfinite ? best : beyond();
}

[[gnu::always_inline]] inline void choose_scales(const float* x, const float* w, const Limits& limits, const Integers& code, const float* wanted, Block& block) {
  block.error = 0;
  for (int j = 0; j < limits.units; ++j) {
    const int nearest = kept_off_zero(wanted[j] / block.d, limits);
    float least = kInfinite;
    for (int s = std::max(nearest - 1, limits.low); s <= std::min(nearest + 1, limits.high); ++s) {
      if (s == 0) continue;
      const float error = fit(x + j * limits.n, w + j * limits.n, limits.n, block.d * static_cast<float>(s), code).error;
      if (error < least) {
        least = error;
        block.scale[static_cast<size_t>(j)] = s;
      }
    }
    block.error += least;
  }
}

[[gnu::always_inline]] inline float fit_factor(const float* x, const float* w, const Limits& limits, const Integers& code, const Block& block) {
  double aa = 0, xa = 0;
  for (int j = 0; j < limits.units; ++j) {
    const float integer = static_cast<float>(block.scale[static_cast<size_t>(j)]), inverse = 1 / (block.d * integer);
    const float *xs = x + j * limits.n, *ws = w + j * limits.n;
    float saa = 0, sxa = 0;
    for (int i = 0; i < limits.n; ++i) {
      const float a = integer * code(xs[i] * inverse);
      saa += ws[i] * a * a;
      sxa += ws[i] * xs[i] * a;
    }
    aa += saa;
    xa += sxa;
  }
  return aa > 0 ? static_cast<float>(xa / aa) : block.d;
}

[[gnu::always_inline]] inline Block scale_block(const float* x, const float* w, const Limits& limits, const Integers& code, const Shape& shape) {
  std::array<float, kMostUnits> wanted{};
  float most = 0;
  for (int j = 0; j < limits.units; ++j) {
    wanted[static_cast<size_t>(j)] = unit_scale(x + j * limits.n, w + j * limits.n, limits.n, code, [](float s) { return s; }, shape);
    if (std::abs(wanted[static_cast<size_t>(j)]) > std::abs(most)) most = wanted[static_cast<size_t>(j)];
  }
  Block best;
  if (most == 0) {
    best.scale.fill(1);
    return best;
  }
  const int starts = limits.high < 64 ? 4 : 1;
  for (int k = 0; k < starts; ++k) {
    Block block;
    block.d = half_scale(std::abs(most) / ((1 - 0.06f * static_cast<float>(k)) * static_cast<float>(most < 0 ? -limits.low : limits.high)));
    std::array<float, kMostUnits> aim = wanted;
    for (int round = 0; round < 3; ++round) {
      choose_scales(x, w, limits, code, aim.data(), block);
      if (block.error < best.error) best = block;
      const float d = half_scale(fit_factor(x, w, limits, code, block));
      if (!(d > 0) || d == block.d) break;
      for (int j = 0; j < limits.units; ++j) aim[static_cast<size_t>(j)] = d * static_cast<float>(block.scale[static_cast<size_t>(j)]);
      block.d = d;
    }
  }
  return best.error < kInfinite ? best : beyond();
}

// ---- rows ----

Shape shape_of(Storage storage) {
  switch (storage) {
    case Storage::q4_0: return {5, 9, 16, true};
    case Storage::q5_0: return {12, 17, 10, true};
    case Storage::q8_0: return {124, 128, 4, false};
    case Storage::q3_k: return {2, 4.8f, 14, true};
    case Storage::q6_k: return {28, 33, 10, true};
    case Storage::iq4_nl: return {80, 140, 20, true};
    case Storage::mxfp4: return {2.5f, 8, 10, false};
    case Storage::mxfp8: return {180, 500, 4, false};
    default: return {3, 8, 24, false};
  }
}

struct Worker {
  const GridSearch& s;
  const StorageInfo& info;
  int bits;
  Limits limits;
  Stored stored;
  Shape shape;
  int64_t units, blocks;  // a row

  static void weigh(const float* importance, int n, float* w) {
    if (importance) {
      float mean = 0;
      for (int i = 0; i < n; ++i) mean += importance[i];
      mean /= static_cast<float>(n);
      if (mean > 0) {
        for (int i = 0; i < n; ++i) w[i] = importance[i] / mean + 1e-4f;
        return;
      }
    }
    for (int i = 0; i < n; ++i) w[i] = 1;
  }

  QB_CPU_CLONES
  void row(int64_t r) const {
    const float* x = s.weight + r * s.columns;
    std::array<float, 256> w{};
    const Integers integers{static_cast<float>(-(1 << (bits - 1))), static_cast<float>((1 << (bits - 1)) - 1)};
    float *scale = s.scale + r * units, *minimum = s.minimum ? s.minimum + r * units : nullptr;
    if (info.super > 0) {
      for (int64_t b = 0; b < blocks; ++b) {
        const int64_t at = b * info.super;
        weigh(s.importance ? s.importance + at : nullptr, static_cast<int>(info.super), w.data());
        const Block block = info.minimum ? line_block(x + at, w.data(), limits, bits) : scale_block(x + at, w.data(), limits, integers, shape);
        store(block, r, b);
      }
      return;
    }
    const int n = static_cast<int>(info.group);
    for (int64_t u = 0; u < units; ++u) {
      const float* xs = x + u * n;
      weigh(s.importance ? s.importance + u * n : nullptr, n, w.data());
      if (info.minimum) {
        const Pair p = unit_line(xs, w.data(), n, bits, false, [](Pair q) { return Pair{half_scale(q.scale), half(q.minimum)}; });
        scale[u] = p.scale == 0 ? 1 : p.scale;
        minimum[u] = half(p.minimum);
        continue;
      }
      switch (info.storage) {
        case Storage::iq4_nl: scale[u] = unit_scale(xs, w.data(), n, Levels{}, stored, shape); break;  // no level is zero: a scale is, where all weights are
        case Storage::mxfp4:
        case Storage::nvfp4: scale[u] = unit_scale(xs, w.data(), n, Floats{0.5f, 0.5f, 6}, stored, shape); break;
        case Storage::mxfp8: scale[u] = unit_scale(xs, w.data(), n, Floats{1.0f / 512, 1.0f / 8, 448}, stored, shape); break;
        case Storage::q8_0: scale[u] = unit_scale(xs, w.data(), n, Integers{-127, 127}, stored, shape); break;
        default: scale[u] = unit_scale(xs, w.data(), n, integers, stored, shape);
      }
      if (scale[u] == 0 && info.storage != Storage::iq4_nl) scale[u] = stored(stored.factor);
    }
  }

  void store(const Block& block, int64_t r, int64_t b) const {
    s.super[r * blocks + b] = block.d;
    if (s.super_minimum) s.super_minimum[r * blocks + b] = block.dmin;
    for (int j = 0; j < limits.units; ++j) {
      const int64_t u = r * units + b * limits.units + j;
      s.scale[u] = block.d * static_cast<float>(block.scale[static_cast<size_t>(j)]);
      if (s.minimum) s.minimum[u] = -block.dmin * static_cast<float>(block.minimum[static_cast<size_t>(j)]);
    }
  }

  // The factor and integers nearest to what units want, by Σ squared distance.
  template <class Nearest>
  static float factor_of(const float* wanted, int n, int high, Nearest nearest) {
    float most = 0;
    for (int j = 0; j < n; ++j) most = std::max(most, std::abs(wanted[j]));
    if (most == 0) return 0;
    float best = 0, least = kInfinite;
    for (int k = high; k >= std::max(1, high / 2); --k) {
      const float d = half_scale(most / static_cast<float>(k));
      float distance = 0;
      for (int j = 0; j < n; ++j) {
        const float off = wanted[j] - d * static_cast<float>(nearest(wanted[j] / d));
        distance += off * off;
      }
      if (distance < least) {
        least = distance;
        best = d;
      }
    }
    return best;
  }

  void nearest(int64_t r) const {
    float *scale = s.scale + r * units, *minimum = s.minimum ? s.minimum + r * units : nullptr;
    if (info.super == 0) {
      for (int64_t u = 0; u < units; ++u) {
        scale[u] = scale[u] == 0 ? info.storage == Storage::iq4_nl ? 0 : stored(stored.factor) : stored(scale[u]);
        if (minimum) minimum[u] = half(minimum[u]);
      }
      return;
    }
    for (int64_t b = 0; b < blocks; ++b) {
      Block block;
      const float *want = scale + b * limits.units, *low = minimum ? minimum + b * limits.units : nullptr;
      auto integer = [&](float q) { return kept_off_zero(q, limits); };
      auto level = [&](float q) { return std::clamp(static_cast<int>(std::lround(-q)), 0, limits.minimum_high); };
      if (const float d = factor_of(want, limits.units, std::max(limits.high, -limits.low), integer); d > 0) block.d = d;
      if (low) block.dmin = factor_of(low, limits.units, limits.minimum_high, [&](float q) { return -level(q); });
      for (int j = 0; j < limits.units; ++j) {
        block.scale[static_cast<size_t>(j)] = integer(want[j] / block.d);
        if (low && block.dmin > 0) block.minimum[static_cast<size_t>(j)] = level(low[j] / block.dmin);
      }
      store(block, r, b);
    }
  }
};

Worker worker(const GridSearch& s, Storage storage) {
  const StorageInfo& info = info_of(storage);
  const QuantSpec spec = spec_of(storage);
  const Limits limits{static_cast<int>(info.super / info.group), static_cast<int>(info.group), info.scale_low, info.scale_high, info.minimum_high};
  return {s, info, spec.type.bits, limits, {spec.scale_type, static_cast<float>(s.factor)}, shape_of(storage), s.columns / info.group,
          info.super > 0 ? s.columns / info.super : 0};
}

}  // namespace

void search_grids(const GridSearch& search, Storage storage) {
  const Worker work = worker(search, storage);
  at::parallel_for(0, search.rows, std::max<int64_t>(1, 2048 / search.columns), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) work.row(r);
  });
}

void nearest_grids(const GridSearch& wanted, Storage storage) {
  const Worker work = worker(wanted, storage);
  for (int64_t r = 0; r < wanted.rows; ++r) work.nearest(r);
}

}  // namespace qb
