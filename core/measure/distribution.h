#pragma once
#include <ATen/ATen.h>

#include <vector>

namespace qb {

// Sums over all values of a tensor, in float64, and what follows from them.
struct Moments {
  int64_t count = 0;
  double sum = 0, squares = 0, cubes = 0, fourths = 0;  // of x, x², x³, x⁴
  double peak = 0;                                       // largest |x|; not finite where a value is not

  double mean() const;
  double root_mean_square() const;
  // E[(x − mean)⁴] / E[(x − mean)²]²; NaN where the values do not differ, or where their mean drowns their spread in these sums.
  double kurtosis() const;
};

// In one pass, whatever the number of threads to the same bits.
Moments moments(const at::Tensor& values);

struct BinCounts {
  std::vector<int64_t> counts;     // value x is in bin ⌊(x − low) / (high − low) · bins⌋, high in the last
  int64_t below = 0, above = 0;    // NaN is nowhere
};

BinCounts count_bins(const at::Tensor& values, double low, double high, int bins);

}  // namespace qb
