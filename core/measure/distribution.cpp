#include "core/measure/distribution.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <mutex>

#include "core/measure/distribution_kernel.h"

namespace qb {
namespace {

constexpr int64_t kChunk = 1 << 14;  // values that one thread sums or counts at a time

at::Tensor flat_floats(const at::Tensor& values) { return values.reshape({-1}).to(at::kFloat).contiguous(); }

Moments by_operations(const at::Tensor& values) {
  const at::Tensor x = values.to(at::kDouble), squares = x.square();
  auto sum = [](const at::Tensor& t) { return t.sum().item<double>(); };
  return {x.numel(), sum(x), sum(squares), sum(squares * x), sum(squares.square()), x.numel() ? x.abs().max().item<double>() : 0};
}

BinCounts by_operations(const at::Tensor& values, double low, double high, int bins) {
  // Slots as the kernel numbers them.
  const at::Tensor x = values.to(at::kDouble);
  at::Tensor slot = ((x - low) * (bins / (high - low))).nan_to_num(0).clamp(0, bins - 1).to(at::kLong) + 1;
  slot.masked_fill_(x < low, 0).masked_fill_(x > high, bins + 1).masked_fill_(x.isnan(), bins + 2);
  const at::Tensor counted = at::bincount(slot, {}, bins + 3).to(at::kCPU);
  const auto* all = counted.const_data_ptr<int64_t>();
  return {{all + 1, all + 1 + bins}, all[0], all[bins + 1]};
}

}  // namespace

double Moments::mean() const { return sum / std::max<double>(1, static_cast<double>(count)); }

double Moments::root_mean_square() const { return std::sqrt(squares / std::max<double>(1, static_cast<double>(count))); }

double Moments::kurtosis() const {
  constexpr double kTold = 1e-6;  // of the mean square: the fourth moment then keeps four digits
  const auto n = static_cast<double>(count);
  const double mean = this->mean(), second = squares / n - mean * mean;
  if (!(second > kTold * squares / n)) return std::numeric_limits<double>::quiet_NaN();
  const double fourth = fourths / n - 4 * mean * cubes / n + 6 * mean * mean * squares / n - 3 * mean * mean * mean * mean;
  return fourth / (second * second);
}

Moments moments(const at::Tensor& values) {
  const at::Tensor x = flat_floats(values);
  if (!x.is_cpu()) return by_operations(x);
  const int64_t chunks = (x.numel() + kChunk - 1) / kChunk;
  std::vector<PartialMoments> parts(static_cast<size_t>(chunks));
  at::parallel_for(0, chunks, 1, [&](int64_t from, int64_t to) {
    for (int64_t c = from; c < to; ++c)
      parts[static_cast<size_t>(c)] = partial_moments(x.const_data_ptr<float>() + c * kChunk, std::min(kChunk, x.numel() - c * kChunk));
  });
  Moments all;
  all.count = x.numel();
  for (const PartialMoments& part : parts) {
    all.sum += part.sum;
    all.squares += part.squares;
    all.cubes += part.cubes;
    all.fourths += part.fourths;
    all.peak = std::max(all.peak, static_cast<double>(part.peak));
  }
  // A comparison passes NaN by; sums do not.
  if (!std::isfinite(all.squares)) all.peak = x.abs().max().item<double>();
  return all;
}

BinCounts count_bins(const at::Tensor& values, double low, double high, int bins) {
  const at::Tensor x = flat_floats(values);
  if (!x.is_cpu()) return by_operations(x, low, high, bins);
  std::vector<int64_t> slots(static_cast<size_t>(bins) + 3, 0);
  std::mutex mutex;
  at::parallel_for(0, x.numel(), kChunk, [&](int64_t from, int64_t to) {
    std::vector<int64_t> own(slots.size(), 0);
    count_slots(x.const_data_ptr<float>() + from, to - from, low, high, bins, own.data());
    const std::lock_guard lock(mutex);
    for (size_t i = 0; i < slots.size(); ++i) slots[i] += own[i];
  });
  const auto first = slots.begin() + 1, last = first + bins;
  return {{first, last}, slots.front(), *last};
}

}  // namespace qb
