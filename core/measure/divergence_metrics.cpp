#include "core/measure/divergence_metrics.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <span>

namespace qb {
namespace {

struct Estimate {
  double mean = 0, error = 0;
};

// The error of the mean, s/√n. None of a single value.
Estimate mean_of(std::span<const double> values) {
  const auto n = static_cast<double>(values.size());
  double mean = 0, squares = 0;
  for (const double value : values) mean += value;
  mean /= n;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return {mean, n > 1 ? std::sqrt(squares / (n - 1) / n) : 0};
}

std::vector<double> window_means(const std::vector<double>& values, int64_t per_window) {
  std::vector<double> means;
  const auto step = static_cast<size_t>(per_window);
  for (size_t first = 0; first + step <= values.size(); first += step) means.push_back(mean_of(std::span(values).subspan(first, step)).mean);
  return means;
}

// Between the two nearest, in proportion.
double quantile(const std::vector<double>& sorted, double share) {
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<size_t>(place), high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (place - static_cast<double>(low)) * (sorted[high] - sorted[low]);
}

Histogram counted(const std::vector<double>& values, double low, double high, int bins) {
  Histogram histogram{low, high, std::vector<int64_t>(static_cast<size_t>(bins), 0)};
  for (const double value : values) {
    if (value < low)
      ++histogram.below;
    else if (value > high)
      ++histogram.above;
    else
      ++histogram.counts[static_cast<size_t>(std::min<double>(bins - 1, (value - low) / (high - low) * bins))];
  }
  return histogram;
}

struct Percentile {
  const char *name, *title;
  double share;
};
constexpr Percentile kKlPercentiles[] = {{"kl_median", "Median KL", 0.5}, {"kl_p90", "90 % KL", 0.9}, {"kl_p95", "95 % KL", 0.95}, {"kl_p99", "99 % KL", 0.99},
                                         {"kl_p99_9", "99.9 % KL", 0.999}, {"kl_max", "Maximum KL", 1}, {"kl_min", "Minimum KL", 0}};
constexpr Percentile kDeltaPercentiles[] = {{"delta_p_max", "Maximum Δp", 1}, {"delta_p_p99_9", "99.9 % Δp", 0.999}, {"delta_p_p99", "99 % Δp", 0.99}, {"delta_p_p95", "95 % Δp", 0.95},
                                            {"delta_p_p75", "75 % Δp", 0.75}, {"delta_p_median", "Median Δp", 0.5}, {"delta_p_p25", "25 % Δp", 0.25}, {"delta_p_p5", "5 % Δp", 0.05},
                                            {"delta_p_p1", "1 % Δp", 0.01}, {"delta_p_p0_1", "0.1 % Δp", 0.001}, {"delta_p_min", "Minimum Δp", 0}};

template <size_t N>
void add_percentiles(std::vector<Metric>& metrics, const Percentile (&percentiles)[N], std::vector<double> values) {
  std::sort(values.begin(), values.end());
  for (const Percentile& percentile : percentiles) metrics.push_back({.name = percentile.name, .value = quantile(values, percentile.share)});
}

}  // namespace

std::vector<Metric> divergence_figures(const TokenDivergences& tokens) {
  const size_t n = tokens.kl.size();
  std::vector<Metric> metrics;
  if (n == 0) return metrics;
  const auto by_token = [&](const std::function<double(size_t)>& figure) {
    std::vector<double> values(n);
    for (size_t i = 0; i < n; ++i) values[i] = figure(i);
    return values;
  };
  const auto add = [&](const char* name, double value, double error, const std::vector<double>& values = {}, Histogram histogram = {}) {
    metrics.push_back({name, value, error, values.empty() ? values : window_means(values, tokens.tokens_per_window), std::move(histogram)});
  };

  const Estimate kl = mean_of(tokens.kl);
  const auto decades = by_token([&](size_t i) { return tokens.kl[i] > 0 ? std::log10(tokens.kl[i]) : -std::numeric_limits<double>::infinity(); });
  add("kl", kl.mean, kl.error, tokens.kl, counted(decades, kLowestKlDecade, kHighestKlDecade, static_cast<int>(kHighestKlDecade - kLowestKlDecade) * kBinsPerDecade));
  add_percentiles(metrics, kKlPercentiles, tokens.kl);

  const auto same = by_token([&](size_t i) { return tokens.same_top[i] ? 100.0 : 0.0; });
  const Estimate top = mean_of(same);
  add("same_top", top.mean, top.error, same);

  const auto delta = by_token([&](size_t i) { return 100 * (std::exp(-tokens.nll[i]) - std::exp(-tokens.reference_nll[i])); });
  const Estimate mean_delta = mean_of(delta), square = mean_of(by_token([&](size_t i) { return delta[i] * delta[i]; }));
  add("delta_p", mean_delta.mean, mean_delta.error, delta, counted(delta, -100, 100, 200));
  const double rms = std::sqrt(square.mean);
  add("delta_p_rms", rms, rms > 0 ? square.error / (2 * rms) : 0);
  add_percentiles(metrics, kDeltaPercentiles, delta);

  // The two losses of a token go together: the error of their difference's mean is what their covariance leaves.
  const Estimate nll = mean_of(tokens.nll), reference = mean_of(tokens.reference_nll);
  const auto difference = by_token([&](size_t i) { return tokens.nll[i] - tokens.reference_nll[i]; });
  const Estimate log_ratio = mean_of(difference);
  double covariance = 0;  // of the two means
  for (size_t i = 0; i < n && n > 1; ++i)
    covariance += (tokens.nll[i] - nll.mean) * (tokens.reference_nll[i] - reference.mean) / static_cast<double>(n - 1) / static_cast<double>(n);
  const double perplexity = std::exp(nll.mean), its = std::exp(reference.mean), ratio = std::exp(log_ratio.mean);
  const double error = perplexity * nll.error, its_error = its * reference.error;
  add("perplexity", perplexity, error);
  add("reference_perplexity", its, its_error);
  add("ln_ppl_ratio", log_ratio.mean, log_ratio.error, difference);
  add("ppl_ratio", ratio, ratio * log_ratio.error);
  add("ppl_difference", perplexity - its, std::sqrt(std::max(0.0, error * error + its_error * its_error - 2 * perplexity * its * covariance)));
  const double spread = nll.error * reference.error;
  add("ppl_correlation", spread > 0 ? 100 * covariance / spread : std::numeric_limits<double>::quiet_NaN(), 0);
  return metrics;
}

std::vector<MetricInfo> divergence_metrics() {
  std::vector<MetricInfo> infos;
  const auto percentiles = [&](const auto& table, const char* unit, const char* help) {
    for (const Percentile& percentile : table) infos.push_back({percentile.name, percentile.title, unit, false, help});
  };
  infos.push_back({"kl", "KL divergence", "nats", false,
                   "Mean over tokens of Σ p ln(p/q), p the float model's prediction and q this one's; values by window; histogram of log10 by token"});
  percentiles(kKlPercentiles, "nats", "That share of the tokens has a KL divergence of at most this; between neighbours in proportion");
  infos.push_back({"same_top", "Same top token", "%", true, "Share of tokens where both models find the same token most probable; error √(p(1−p)/(n−1))"});
  infos.push_back({"delta_p", "Mean Δp", "%", true, "Mean change of the correct token's probability against the float model; histogram by token"});
  infos.push_back({"delta_p_rms", "RMS Δp", "%", false, "Root of the mean square of the change of the correct token's probability"});
  for (const Percentile& percentile : kDeltaPercentiles)
    infos.push_back({percentile.name, percentile.title, "%", true, "That share of the tokens has a change of the correct token's probability of at most this"});
  infos.push_back({"perplexity", "Perplexity", "", false, "exp of the mean loss of the scored tokens; error by tokens"});
  infos.push_back({"reference_perplexity", "Float model's perplexity", "", false, "On the same tokens"});
  infos.push_back({"ln_ppl_ratio", "ln PPL ratio", "", false, "Mean difference of the two losses of a token, ln(PPL/PPL of the float model); values by window"});
  infos.push_back({"ppl_ratio", "PPL ratio", "", false, "PPL/PPL of the float model, error by the paired difference"});
  infos.push_back({"ppl_difference", "PPL difference", "", false, "PPL − PPL of the float model, error by the covariance of the losses"});
  infos.push_back({"ppl_correlation", "Correlation of losses", "%", true, "100·Cor(ln PPL, ln PPL of the float model), over tokens; none where a loss does not vary"});
  return infos;
}

}  // namespace qb
