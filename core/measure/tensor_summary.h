#pragma once
#include <filesystem>
#include <stop_token>
#include <string>
#include <vector>

#include "core/measure/report.h"

namespace qb {

// Absolute values along one axis of a matrix, for each of its channels; `step` neighbours are one entry after thinned().
struct ChannelSizes {
  int64_t channels = 0, step = 1;
  std::vector<float> mean_abs, abs_max;
};

// What a stored tensor holds, before any run. A vector counts as a matrix of one row; of more axes all but the first are columns.
struct TensorSummary {
  std::string tensor;                // canonical name
  std::string dtype;                 // as stored
  std::vector<int64_t> shape;
  int64_t values = 0;
  int64_t not_finite = 0;            // left out of everything below
  double mean = 0, deviation = 0, abs_max = 0, kurtosis = 0;
  double outlier_share = 0;          // of values farther than kOutlierDeviations from the mean
  Histogram histogram;               // within 12 root mean squares
  ChannelSizes columns, rows;        // input and output channels of a linear; rows empty for a vector
};
inline constexpr double kOutlierDeviations = 6;  // of normally distributed values 2 in a thousand million

// Reads a tensor of a model by rows, whatever its size. Throws InputError naming file and tensor, Cancelled.
TensorSummary summarise_tensor(const std::filesystem::path& model, const std::string& tensor, const std::stop_token& stop = {});

// At most `most` entries: the mean of neighbours' means and the largest of their maxima.
ChannelSizes thinned(const ChannelSizes& sizes, int64_t most);

}  // namespace qb
