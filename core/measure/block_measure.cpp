#include "core/measure/block_measure.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/engine/module_name.h"
#include "core/measure/distribution.h"

namespace qb {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr size_t kOutliers = 32;

double sum_of_squares(const at::Tensor& t) { return moments(t).squares; }

double sqnr_db(double signal, double noise) {
  if (noise == 0) return std::numeric_limits<double>::infinity();
  if (signal == 0) return -std::numeric_limits<double>::infinity();
  return 10 * std::log10(signal / noise);
}

// ‖error‖/‖signal‖ from sums of squares; NaN stays NaN.
double relative_error(double signal, double noise) {
  if (signal == 0) return noise == 0 ? 0 : std::numeric_limits<double>::infinity();
  return std::sqrt(noise / signal);
}

double kurtosis_of(const at::Tensor& values, const Moments& of) {
  const double direct = of.kurtosis();
  if (!std::isnan(direct) || !std::isfinite(of.squares) || of.count == 0) return direct;
  return moments(values.to(at::kFloat) - of.mean()).kurtosis();
}

// A few huge values must not squeeze the bulk into one bin: they are counted apart. Not finite: the finite ones decide.
double shown_range(const at::Tensor& values, const Moments& of) {
  constexpr double kDeviations = 12;
  const double range = std::min(of.peak, kDeviations * of.root_mean_square());
  if (std::isfinite(range)) return range;
  const Moments finite = moments(values.masked_select(values.isfinite()));
  return std::min(finite.peak, kDeviations * finite.root_mean_square());
}

std::vector<OutlierChannel> outlier_channels(const at::Tensor& abs_max) {
  const at::Tensor peaks = abs_max.to(at::kCPU, at::kFloat).contiguous();
  const auto* values = peaks.const_data_ptr<float>();
  std::vector<double> sorted;
  std::vector<OutlierChannel> channels;
  for (int64_t c = 0; c < peaks.numel(); ++c)
    if (!std::isnan(values[c])) {
      sorted.push_back(values[c]);
      channels.push_back({c, values[c], 0});
    }
  if (channels.empty()) return {};
  std::sort(sorted.begin(), sorted.end());
  const double median = 0.5 * (sorted[(sorted.size() - 1) / 2] + sorted[sorted.size() / 2]);
  for (OutlierChannel& channel : channels)
    if (channel.abs_max > 0) channel.ratio = median > 0 ? channel.abs_max / median : std::numeric_limits<double>::infinity();
  const size_t keep = std::min(kOutliers, channels.size());
  std::partial_sort(channels.begin(), channels.begin() + static_cast<std::ptrdiff_t>(keep), channels.end(),
                    [](const auto& a, const auto& b) { return a.abs_max > b.abs_max; });
  channels.resize(keep);
  return channels;
}

// A weight of the transformed model in the coordinates of the original one, as far as scalings lead away from it.
at::Tensor restored(at::Tensor weight, const LinearWork& work) {
  if (work.input_scale.defined()) weight = weight / work.input_scale;
  if (work.output_scale.defined()) weight = weight * work.output_scale.unsqueeze(1);
  return weight;
}

void measure_weights(const LinearWork& work, const at::Tensor& rounded, LinearReport& report) {
  if (!work.reference.defined()) {  // nothing to compare with
    const Moments of_rounded = moments(rounded);
    report.weight_mse = report.weight_max_error = report.weight_sqnr_db = report.weight_kurtosis = kNan;
    report.weight_kurtosis_after = kurtosis_of(rounded, of_rounded);
    const double range = shown_range(rounded, of_rounded);
    report.weight_after = histogram(rounded, -range, range);
    return;
  }
  const at::Tensor before = restored(work.reference, work), after = restored(rounded, work);
  const at::Tensor error = after - before;
  const Moments of_before = moments(before), of_after = moments(after), of_error = moments(error);
  report.weight_mse = of_error.squares / static_cast<double>(std::max<int64_t>(1, of_error.count));
  report.weight_max_error = of_error.peak;
  report.weight_sqnr_db = sqnr_db(of_before.squares, of_error.squares);
  report.weight_kurtosis = kurtosis_of(before, of_before);
  report.weight_kurtosis_after = kurtosis_of(after, of_after);
  // The same bins, so that both can be laid over each other.
  const double range = std::max(shown_range(before, of_before), shown_range(after, of_after)), error_range = shown_range(error, of_error);
  report.weight_before = histogram(before, -range, range);
  report.weight_after = histogram(after, -range, range);
  report.weight_error = histogram(error, -error_range, error_range);
}

// What linears that read one value share: measured once.
struct InputMeasure {
  ValueId value = 0;
  std::optional<QuantSpec> spec;
  std::optional<InputGrid> grid;
  at::Tensor x, seen;  // [tokens, in] float32: as it came, and as the quantized linear sees it
  double kurtosis = 0, abs_max = 0;
  Histogram before, after;
  std::vector<OutlierChannel> outliers;
};

InputMeasure measure_input(ValueId value, const ValueStatistics& statistics, const std::optional<QuantSpec>& activations, const std::optional<InputGrid>& grid) {
  InputMeasure input{value, activations, grid};
  // Quantized in the run's dtype, as the forward pass does it.
  input.x = statistics.rows.to(at::kFloat);
  input.seen = !activations ? input.x : (grid ? fake_quantize(statistics.rows, *activations, *grid) : fake_quantize(statistics.rows, *activations)).to(at::kFloat);
  const Moments of_x = moments(input.x);
  input.kurtosis = kurtosis_of(input.x, of_x);
  input.abs_max = statistics.abs_max.defined() ? moments(statistics.abs_max).peak : of_x.peak;
  const double range = shown_range(input.x, of_x);
  input.before = histogram(input.x, -range, range);
  if (activations) input.after = histogram(input.seen, -range, range);
  if (statistics.abs_max.defined()) input.outliers = outlier_channels(statistics.abs_max);
  return input;
}

void measure_outputs(const LinearWork& work, const at::Tensor& after, const InputMeasure& input, LinearReport& report) {
  const at::Tensor &x = input.x, &seen = input.seen;
  at::Tensor expected = x.matmul(work.reference.t()), got = seen.matmul(after.t());
  if (work.output_scale.defined()) {
    expected.mul_(work.output_scale);
    got.mul_(work.output_scale);
  }
  const at::Tensor error = got - expected;
  const Moments of_error = moments(error);
  const double noise = of_error.squares, signal = sum_of_squares(expected);
  report.output_relative_error = relative_error(signal, noise);
  report.output_sqnr_db = sqnr_db(signal, noise);
  report.output_cosine = at::cosine_similarity(got, expected, 1).mean(at::kDouble).item<double>();
  const double error_range = shown_range(error, of_error);
  report.output_error = histogram(error, -error_range, error_range);
  report.measured_tokens = x.size(0);
  report.input_kurtosis = input.kurtosis;
  report.input_abs_max = input.abs_max;
  report.input_before = input.before;
  report.input_after = input.after;
  report.outliers = input.outliers;
}

}  // namespace

Histogram histogram(const at::Tensor& values, double low, double high, int bins) {
  if (!(high > low) || !std::isfinite(high - low)) {
    const double middle = std::isfinite(low) ? low : 0, half = std::max(std::abs(middle) * 1e-3, 1e-12);
    low = middle - half;
    high = middle + half;
  }
  BinCounts found = count_bins(values, low, high, bins);
  return {low, high, std::move(found.counts), found.below, found.above};
}

double kurtosis(const at::Tensor& values) { return kurtosis_of(values, moments(values)); }

BlockReport measure_block(const BlockView& view, const Scheme& scheme) {
  BlockReport report;
  report.block = view.work.block.index;
  report.seconds = view.seconds;
  report.statistics_cached = view.statistics_cached;
  report.peak_rss_bytes = peak_resident_bytes();
  report.output_relative_error = kNan;
  if (view.float_output.defined() && view.quantized_output.defined()) {
    const double signal = sum_of_squares(view.float_output), noise = sum_of_squares(view.quantized_output - view.float_output);
    report.output_relative_error = relative_error(signal, noise);
    report.measured_tokens = view.float_output.size(0);
  }
  std::optional<InputMeasure> input;
  for (const LinearWork& work : view.work.linears) {
    view.work.control.checkpoint();
    LinearReport linear;
    linear.block = report.block;
    linear.name = work.info.name;
    linear.subset = work.info.subset;
    linear.out_features = work.info.out_features;
    linear.in_features = work.info.in_features;
    linear.scheme = work.quantized ? describe(work.quantized->spec) : "float";
    const double stored_bits = work.info.bytes > 0 ? 8.0 * static_cast<double>(work.info.bytes) /
                                                         static_cast<double>(work.info.out_features * work.info.in_features)
                                                   : 16;
    linear.bits_per_weight = work.quantized ? bits_per_weight(*work.quantized) : stored_bits;
    linear.note = work.note;
    for (double* value : {&linear.output_relative_error, &linear.output_sqnr_db, &linear.output_cosine, &linear.input_kurtosis, &linear.input_abs_max})
      *value = kNan;
    const at::Tensor after = work.quantized ? work.quantized->dequantize() : work.weight;
    measure_weights(work, after, linear);
    const auto statistics = view.work.statistics.find(work.info.input);
    if (statistics != view.work.statistics.end() && statistics->second.rows.defined() && statistics->second.rows.size(0) > 0) {
      const auto activations = work.activations ? work.activations : scheme.activations_of(work.module);
      if (!input || input->value != work.info.input || input->spec != activations || input->grid != work.input_grid)
        input = measure_input(work.info.input, statistics->second, activations, work.input_grid);
      measure_outputs(work, after, *input, linear);
    }
    report.linears.push_back(std::move(linear));
  }
  return report;
}

namespace {

// Every so many of a weight's rows as numbers; those between them are not dequantized where each row has scales of its own.
at::Tensor some_rows(const QuantizedWeight& weight, int64_t stride) {
  const int64_t rows = weight.codes.size(0);
  const auto some = [&](const at::Tensor& t) { return t.defined() && t.size(0) == rows ? t.slice(0, 0, rows, stride) : t; };
  const bool by_row = weight.grid.scale.size(0) == rows && !weight.columns.defined() && !weight.outliers.defined() && weight.spec.granularity != Granularity::block;
  if (!by_row || stride == 1) return weight.dequantize().slice(0, 0, rows, stride);
  const ScaleZero& grid = weight.grid;
  return QuantizedWeight{weight.spec, some(weight.codes), {some(grid.scale), some(grid.zero), some(grid.minimum), some(grid.super), some(grid.super_minimum)}}.dequantize();
}

}  // namespace

LinearReport measure_vocabulary(const VocabularyView& view) {
  constexpr int64_t kElements = int64_t{1} << 26;
  const int64_t rows = view.original.size(0), columns = view.original.size(1);
  const int64_t stride = std::max<int64_t>(1, (rows * columns + kElements - 1) / kElements);
  LinearReport report;
  report.block = -1;
  report.name = view.module.substr(view.module.rfind('.') + 1);
  report.out_features = rows;
  report.in_features = columns;
  report.scheme = describe(view.quantized.spec);
  report.bits_per_weight = bits_per_weight(view.quantized);
  report.seconds = view.seconds;
  report.note = view.note;
  for (double* value : {&report.output_relative_error, &report.output_sqnr_db, &report.output_cosine, &report.input_kurtosis, &report.input_abs_max}) *value = kNan;
  LinearWork work;
  work.reference = view.original.slice(0, 0, rows, stride).to(at::kCPU, at::kFloat);
  const at::Tensor after = some_rows(view.quantized, stride);
  measure_weights(work, after, report);
  if (stride > 1) report.note += fmt::format("{}measured on {} of {} rows", report.note.empty() ? "" : "; ", work.reference.size(0), rows);
  if (view.gram.defined()) {
    const at::Tensor gram = view.gram.to(at::kCPU, at::kFloat);
    const auto energy = [&](const at::Tensor& w) { return w.matmul(gram).mul_(w).sum(at::kDouble).item<double>(); };
    const double signal = energy(work.reference), noise = energy(after - work.reference);
    report.output_relative_error = relative_error(signal, noise);
    report.output_sqnr_db = sqnr_db(signal, noise);
  }
  return report;
}

}  // namespace qb
