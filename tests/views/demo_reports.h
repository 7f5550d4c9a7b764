#pragma once
// Made-up but plausible runs for tests of views: every figure is a smooth function of depth, kind of linear and bits, with noise of
// a fixed seed.
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "views/models/Selection.h"

namespace qb::test {

struct DemoOptions {
  std::string id = "run", name = "awq → gptq, int4 g64";
  int blocks = 30;
  double bits = 4;
  double quality = 1;      // multiplies every error
  unsigned seed = 1;
  bool histograms = true;
  double perplexity = 24;  // of the quantized model; the float model has 21.7
  int finishedBlocks = -1; // fewer: a run under way
};

inline Histogram normal_histogram(double sigma, double reach, int bins, double total, std::mt19937& random, double steps = 0) {
  Histogram histogram;
  histogram.low = -reach;
  histogram.high = reach;
  std::uniform_real_distribution<double> noise(0.9, 1.1);
  const double width = 2 * reach / bins;
  for (int bin = 0; bin < bins; ++bin) {
    const double x = -reach + (bin + 0.5) * width;
    double density = std::exp(-0.5 * x * x / sigma / sigma) + 0.002 * std::exp(-std::abs(x) / (2 * sigma));
    if (steps > 0 && std::abs(std::remainder(x, steps)) > width * 0.5) density = 0;  // only the levels of a grid
    if (steps > 0) density *= steps / width;
    histogram.counts.push_back(int64_t(std::llround(density * noise(random) * total * width / (2.5 * sigma))));
  }
  return histogram;
}

inline LinearReport demo_linear(int block, const std::string& name, const std::string& subset, int64_t out, int64_t in, const DemoOptions& options,
                                std::mt19937& random) {
  std::lognormal_distribution<double> noise(0, 0.18);
  const double depth = double(block) / std::max(1, options.blocks - 1);
  double badness = (name.find("down") != std::string::npos ? 2.2 : name.find("o_proj") != std::string::npos ? 1.6 : 1.0) * noise(random);
  if (block == 1 && name.find("down") != std::string::npos) badness *= 9;  // the usual massive activation
  const double step = std::pow(2.0, 4 - options.bits) * options.quality;
  LinearReport linear;
  linear.block = block;
  linear.name = name;
  linear.subset = subset;
  linear.out_features = out;
  linear.in_features = in;
  linear.scheme = "int" + std::to_string(int(options.bits + 0.5)) + " g64 asymmetric";
  linear.bits_per_weight = options.bits + 0.3;
  linear.weight_mse = 6e-6 * step * step * noise(random) * (1 + depth);
  linear.weight_max_error = 0.02 * step * noise(random);
  linear.weight_sqnr_db = 24 - 20 * std::log10(step) - 2 * depth + 0.5 * noise(random);
  linear.output_relative_error = 0.035 * step * badness * (0.7 + 1.1 * depth * depth);
  linear.output_sqnr_db = -20 * std::log10(linear.output_relative_error);
  linear.output_cosine = 1 - 0.5 * linear.output_relative_error * linear.output_relative_error;
  linear.weight_kurtosis = 3.4 + badness * 0.6;
  linear.weight_kurtosis_after = 3.2;
  linear.input_kurtosis = 8 + 60 * badness;
  linear.input_abs_max = 9 * badness;
  linear.seconds = 0.4 * noise(random);
  if (options.histograms) {
    linear.weight_before = normal_histogram(0.05, 0.3, 128, 331776, random);
    linear.weight_after = normal_histogram(0.05, 0.3, 128, 331776, random, 0.0375 * std::max(0.2, step));
    linear.weight_error = normal_histogram(0.006 * step, 0.04, 128, 331776, random);
    linear.input_before = normal_histogram(0.9, 8, 128, 1e6, random);
    linear.input_after = normal_histogram(0.7, 6, 128, 1e6, random);
    linear.output_error = normal_histogram(0.05 * step, 0.5, 128, 1e6, random);
    std::uniform_int_distribution<int64_t> channel(0, in - 1);
    double ratio = 38 * badness;
    for (int i = 0; i < 24; ++i, ratio *= 0.82) linear.outliers.push_back({channel(random), 0.6 * ratio, ratio});
  }
  return linear;
}

inline BlockReport demo_block(int block, const DemoOptions& options, std::mt19937& random) {
  BlockReport report;
  report.block = block;
  const struct {
    const char *name, *subset;
    int64_t out, in;
  } linears[] = {{"self_attn.q_proj", "qkv", 576, 576},  {"self_attn.k_proj", "qkv", 192, 576},     {"self_attn.v_proj", "qkv", 192, 576},
                 {"self_attn.o_proj", "o", 576, 576},    {"mlp.gate_proj", "gate_up", 1536, 576},   {"mlp.up_proj", "gate_up", 1536, 576},
                 {"mlp.down_proj", "down", 576, 1536}};
  for (const auto& each : linears) report.linears.push_back(demo_linear(block, each.name, each.subset, each.out, each.in, options, random));
  report.output_relative_error = 0.05;
  report.seconds = 3.1;
  report.peak_rss_bytes = int64_t(1.4e9);
  return report;
}

inline EvaluationResult demo_perplexity(double perplexity, bool float_model, unsigned seed) {
  EvaluationResult result;
  result.corpus = "wikitext2 test";
  result.corpus_hash = "c0ffee";
  result.seq_len = 2048;
  result.windows = 20;
  result.windows_total = 141;
  result.corpus_tokens = 289077;
  result.dtype = "float32";
  result.float_model = float_model;
  result.seconds = 61;
  std::mt19937 text(7), own(seed);  // windows are hard or easy for every model alike
  std::normal_distribution<double> hard(0, 0.16), noise(0, 0.012);
  const double mean = std::log(perplexity);
  std::vector<double> windows;
  double sum = 0;
  for (int i = 0; i < 20; ++i) {
    windows.push_back(mean + hard(text) + (float_model ? 0 : noise(own)));
    sum += windows.back();
  }
  for (double& nll : windows) nll += mean - sum / 20;
  double squares = 0;
  for (const double nll : windows) squares += (nll - mean) * (nll - mean);
  const double error = std::sqrt(squares / 19 / 20);
  result.put({"perplexity", perplexity, perplexity * error});
  result.put({"nll", mean, error, windows});
  return result;
}

inline views::RunPtr demo_run(const DemoOptions& options) {
  auto report = std::make_shared<RunReport>();
  std::mt19937 random(options.seed);
  report->id = options.id;
  report->name = options.name;
  report->status = options.finishedBlocks < 0 ? RunStatus::finished : RunStatus::running;
  report->model_name = "SmolLM2-135M";
  report->model_path = "models/smollm2";
  report->model_hash = "3f9a52d1c77b0e64";
  report->calibration_hash = "a61be90d11";
  report->recipe_hash = "77d0" + options.id;
  report->scheme = "W" + std::to_string(int(options.bits + 0.5)) + "A16 g64";
  report->pipeline = "awq → clip → gptq";
  report->started = "2026-11-24T08:12:40Z";
  report->seed = 42;
  report->calibration_tokens = 65536;
  report->environment = {"0.1.0", "2.11.0", "cpu", "Xeon", "host", 8};
  const int done = options.finishedBlocks < 0 ? options.blocks : options.finishedBlocks;
  for (int block = 0; block < done; ++block) report->blocks.push_back(demo_block(block, options, random));
  report->bits_per_weight = options.bits + 0.3;
  report->float_bytes = 212336640;
  report->quantized_bytes = uint64_t(212336640.0 * report->bits_per_weight / 16);
  report->quantize_seconds = 95 * options.quality + 20 * options.seed;
  report->peak_rss_bytes = int64_t(1.1e9 + 1.5e8 * options.seed);
  if (options.finishedBlocks < 0) {
    report->finished = "2026-11-24T08:15:02Z";
    report->evaluate_seconds = 61;
    report->evaluations = {demo_perplexity(21.7, true, 1), demo_perplexity(options.perplexity, false, options.seed + 10)};
  }
  return report;
}

// Many finished runs of one recipe after the other, all shown; "run 3" is current, "run 5" the baseline.
inline void fill_many(views::Selection& selection, int count, int blocks = 30, bool histograms = false) {
  const char* methods[] = {"rtn", "gptq", "awq → gptq", "awq → clip → gptq", "quarot → gptq", "smoothquant → gptq"};
  for (int i = 0; i < count; ++i) {
    const double bits = 2 + i % 5 * 0.5 + i % 3;
    DemoOptions options{"run " + std::to_string(i), "", blocks, bits, 0.6 + 0.05 * (i % 13), unsigned(i) + 1, histograms, 21.7 + 14 * std::pow(2.0, 3.5 - bits) + 0.1 * i};
    options.name = std::string(methods[i % 6]) + ", int" + std::to_string(int(bits + 0.5)) + " g" + std::to_string(32 << i % 3) + ", attempt " + std::to_string(i);
    selection.putRun(demo_run(options));
    selection.setShown(QString::fromStdString(options.id), true);
  }
  selection.setCurrentRun("run 3");
  selection.setBaseline("run 5");
}

// Five finished runs and one under way, all shown, "rtn4" being the baseline and "gptq4" current.
inline void fill_demo(views::Selection& selection) {
  const DemoOptions runs[] = {{"rtn4", "rtn, int4 g64", 30, 4, 1.5, 1, true, 25.9},
                              {"gptq4", "gptq, int4 g64", 30, 4, 0.9, 2, true, 23.6},
                              {"awq4", "awq → clip → gptq, int4 g128", 30, 3.85, 0.75, 3, true, 23.1},
                              {"rtn3", "rtn, int3 g64", 30, 3, 1.4, 4, true, 41.2},
                              {"gptq3", "awq → gptq, int3 g32", 30, 3.3, 0.9, 5, true, 30.4},
                              {"live", "quarot → gptq, int4", 30, 4, 0.6, 6, true, 22.9, 12}};
  for (const DemoOptions& run : runs) {
    selection.putRun(demo_run(run));
    selection.setShown(QString::fromStdString(run.id), true);
  }
  selection.setBaseline("rtn4");
  selection.setCurrentRun("gptq4");
}

}  // namespace qb::test
