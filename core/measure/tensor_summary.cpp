#include "core/measure/tensor_summary.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/format/gguf.h"
#include "core/measure/block_measure.h"
#include "core/measure/distribution.h"
#include "core/model/canonical_source.h"
#include "core/model/model.h"

namespace qb {
namespace {

constexpr int64_t kChunkValues = int64_t{1} << 22;  // at a time in float32
constexpr double kShownDeviations = 12;             // as the histograms of a run

using RowReader = std::function<at::Tensor(int64_t first, int64_t count)>;  // float32 [count, columns]

// ggml's blocks of one stored tensor are decoded a few rows at a time: a vocabulary's embedding would be gigabytes of float32.
RowReader rows_of(const Model& model, const std::string& tensor, int64_t columns) {
  const CanonicalTensor* entry = model.files ? model.files->entry(tensor) : nullptr;
  if (entry && entry->plain() && !entry->transposed) {
    const TensorInfo& stored = *model.files->stored()->find(entry->stored.front());
    if (is_block_quantized(stored.dtype) && stored.shape.size() == 2 && !model.files->stored()->files().empty()) {
      const auto file = MappedFile::open(model.files->stored()->files()[stored.file]);
      const uint64_t row = stored.bytes / static_cast<uint64_t>(stored.shape[0]);
      return [file, stored, row, columns](int64_t first, int64_t count) {
        at::Tensor values = at::empty({count, columns}, at::kFloat);
        dequantize_ggml(stored.dtype, file->bytes(stored.offset + static_cast<uint64_t>(first) * row, static_cast<uint64_t>(count) * row, stored.name),
                        values.mutable_data_ptr<float>(), values.numel());
        return values;
      };
    }
  }
  const at::Tensor whole = model.source->read(tensor).reshape({-1, columns});
  return [whole](int64_t first, int64_t count) { return whole.narrow(0, first, count).to(at::kFloat).contiguous(); };
}

std::vector<float> floats(const at::Tensor& values) {
  const at::Tensor plain = values.to(at::kFloat).contiguous();
  return {plain.const_data_ptr<float>(), plain.const_data_ptr<float>() + plain.numel()};
}

}  // namespace

TensorSummary summarise_tensor(const std::filesystem::path& path, const std::string& tensor, const std::stop_token& stop) {
  const auto model = Model::open(path);
  const TensorInfo* info = model->source->find(tensor);
  if (!info) throw InputError(fmt::format("{}: there is no tensor \"{}\"", path.string(), tensor));
  TensorSummary summary;
  summary.tensor = tensor;
  summary.dtype = name_of(info->dtype);
  summary.shape = info->shape;
  summary.values = info->elements();
  if (summary.values == 0) throw InputError(fmt::format("{}: tensor \"{}\" is empty", path.string(), tensor));
  const int64_t rows = info->shape.size() < 2 ? 1 : info->shape.front(), columns = summary.values / rows;
  const RowReader read = rows_of(*model, tensor, columns);
  const int64_t step = std::max<int64_t>(1, kChunkValues / columns);
  const auto each = [&](const auto& use) {
    for (int64_t first = 0; first < rows; first += step) {
      if (stop.stop_requested()) throw Cancelled();
      use(read(first, std::min(step, rows - first)));
    }
  };

  Moments all;
  const auto wide = at::TensorOptions().dtype(at::kDouble);
  at::Tensor column_sums = at::zeros({columns}, wide), column_counts = at::zeros({columns}, wide), column_peaks = at::zeros({columns}, at::kFloat);
  std::vector<float> row_means, row_peaks;
  each([&](at::Tensor values) {
    const at::Tensor finite = values.isfinite();
    const int64_t count = finite.sum().item<int64_t>();
    summary.not_finite += values.numel() - count;
    const bool whole = count == values.numel();
    if (!whole) values = at::where(finite, values, at::zeros({}, values.options()));  // zeros, counted nowhere
    const Moments part = moments(values);
    all.count += count;
    all.sum += part.sum;
    all.squares += part.squares;
    all.cubes += part.cubes;
    all.fourths += part.fourths;
    all.peak = std::max(all.peak, part.peak);
    const at::Tensor sizes = values.abs();
    column_sums += sizes.sum({0}, false, at::kDouble);
    column_counts += finite.sum({0}, false, at::kDouble);
    column_peaks = at::maximum(column_peaks, sizes.amax({0}));
    const auto means = floats(sizes.sum({1}, false, at::kDouble) / finite.sum({1}, false, at::kDouble).clamp_min(1)), peaks = floats(sizes.amax({1}));
    row_means.insert(row_means.end(), means.begin(), means.end());
    row_peaks.insert(row_peaks.end(), peaks.begin(), peaks.end());
  });
  summary.columns = {columns, 1, floats(column_sums / column_counts.clamp_min(1)), floats(column_peaks)};
  if (rows > 1) summary.rows = {rows, 1, std::move(row_means), std::move(row_peaks)};
  summary.mean = all.mean();
  summary.abs_max = all.peak;

  // Again, about the mean: sums of powers of what is far from zero tell no spread.
  const double range = std::max(std::min(all.peak, kShownDeviations * all.root_mean_square()), 0.0);
  Moments centred;
  each([&](const at::Tensor& values) {
    const at::Tensor finite = summary.not_finite > 0 ? values.masked_select(values.isfinite()) : values;
    const Moments part = moments(finite - summary.mean);
    centred.count += part.count;
    centred.sum += part.sum;
    centred.squares += part.squares;
    centred.cubes += part.cubes;
    centred.fourths += part.fourths;
    Histogram counted = histogram(finite, -range, range);
    if (summary.histogram.empty()) {
      summary.histogram = std::move(counted);
      return;
    }
    for (size_t bin = 0; bin < counted.counts.size(); ++bin) summary.histogram.counts[bin] += counted.counts[bin];
    summary.histogram.below += counted.below;
    summary.histogram.above += counted.above;
  });
  summary.deviation = centred.root_mean_square();
  summary.kurtosis = centred.kurtosis();
  const double far = kOutlierDeviations * summary.deviation;
  int64_t outliers = 0;
  if (all.peak + std::abs(summary.mean) > far)
    each([&](const at::Tensor& values) { outliers += ((values - summary.mean).abs() > far).logical_and(values.isfinite()).sum().item<int64_t>(); });
  summary.outlier_share = all.count > 0 ? static_cast<double>(outliers) / static_cast<double>(all.count) : 0;
  return summary;
}

ChannelSizes thinned(const ChannelSizes& sizes, int64_t most) {
  if (most < 1 || sizes.channels <= most) return sizes;
  ChannelSizes fewer{sizes.channels, (sizes.channels + most - 1) / most, {}, {}};
  for (size_t first = 0; first < sizes.mean_abs.size(); first += static_cast<size_t>(fewer.step)) {
    const size_t end = std::min(sizes.mean_abs.size(), first + static_cast<size_t>(fewer.step));
    double sum = 0;
    float peak = 0;
    for (size_t i = first; i < end; ++i) {
      sum += sizes.mean_abs[i];
      peak = std::max(peak, sizes.abs_max[i]);
    }
    fewer.mean_abs.push_back(static_cast<float>(sum / static_cast<double>(end - first)));
    fewer.abs_max.push_back(peak);
  }
  return fewer;
}

}  // namespace qb
