#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/measure/evaluation.h"
#include "core/measure/histogram.h"

namespace qb {

// Everything a run tells, as torch-free values: stored as JSON, shown by views and the command line.

struct OutlierChannel {
  int64_t channel = 0;    // input channel
  double abs_max = 0;     // of the calibration inputs
  double ratio = 0;       // abs_max / median abs_max of all channels
};

// One linear in one run. Errors compare with the float model's weight W and output W·x on calibration inputs.
struct LinearReport {
  int block = 0;
  std::string name;       // inside its block
  std::string subset;
  int64_t out_features = 0, in_features = 0;
  std::string scheme;     // "int4 g64 asymmetric", "float"
  double bits_per_weight = 0;
  double weight_mse = 0;              // mean (Ŵ−W)²
  double weight_max_error = 0;        // max |Ŵ−W|
  double weight_sqnr_db = 0;          // 10·log10(ΣW² / Σ(Ŵ−W)²)
  double output_relative_error = 0;   // ‖Ŵx̂−Wx‖ / ‖Wx‖ (Frobenius)
  double output_sqnr_db = 0;
  double output_cosine = 0;           // mean over tokens
  double weight_kurtosis = 0;         // before; Pearson's, 3 for a normal distribution
  double weight_kurtosis_after = 0;
  double input_kurtosis = 0;
  double input_abs_max = 0;
  Histogram weight_before, weight_after, weight_error;
  Histogram input_before, input_after;   // activations entering, float and (fake-)quantized or transformed
  Histogram output_error;
  std::vector<OutlierChannel> outliers;  // largest ratios first, at most 32
  int64_t measured_tokens = 0;        // size of the sample behind output errors and input histograms; 0: none, NaN then
  double seconds = 0;                 // in the stages of the pipeline
  std::string note;                   // what the user should know: "no calibration token reached it: rounded to nearest"
};

struct BlockReport {
  int block = 0;
  std::vector<LinearReport> linears;
  double output_relative_error = 0;   // of the block's output hidden states against the float model's (NaN: no text)
  int64_t measured_tokens = 0;        // that this is taken on
  double seconds = 0;
  int64_t peak_rss_bytes = 0;
  bool statistics_cached = false;     // an earlier run had collected them
};

// Cancelled: somebody wanted it to end; interrupted: its process died, or was told to make room. Both can be resumed.
enum class RunStatus { queued, running, paused, finished, cancelled, interrupted, failed };
std::string to_text(RunStatus value);
std::optional<RunStatus> parse_run_status(const std::string& text);

// What one stage of a run cost, over all its blocks and sessions. Memory in bytes, at most.
struct StageCost {
  std::string stage;          // "load", "calibrate", "gptq", "measure", "evaluate" …
  double seconds = 0;         // on the clock
  double cpu_seconds = 0;     // of all threads
  double device_seconds = 0;  // that the run held a GPU
  int64_t peak_rss_bytes = 0, peak_device_bytes = 0;
};

struct Environment {
  std::string program_version, torch_version, device, cpu, host;
  int threads = 0;
};

// The record of one run.
struct RunReport {
  std::string id;             // folder name, unique in a workspace
  std::string name;           // the recipe's
  RunStatus status = RunStatus::queued;
  std::string error;          // when failed or interrupted
  std::string model_path, model_name, model_hash, calibration_hash, recipe_hash;
  std::string scheme;         // describe(scheme)
  std::string pipeline;       // "awq → clip → gptq"
  std::string sweep;          // that it is one of; empty: none
  std::vector<std::string> tags;  // the user's own words, kept beside the report in the run's folder: not in its JSON
  std::string notes;              // likewise
  std::string started, finished;  // ISO 8601, UTC
  uint64_t seed = 0;
  int style = -1;             // colour and marker in plots, counted among the runs of its model; -1: an older report
  double load_seconds = 0, quantize_seconds = 0, evaluate_seconds = 0;  // open and tokenize; calibrate, quantize, measure; evaluations
  double measure_seconds = 0;     // the part of quantize_seconds that went into block reports, not into quantization
  int64_t peak_rss_bytes = 0;
  int64_t peak_device_bytes = 0;  // that tensors took of a GPU's memory
  double bits_per_weight = 0;     // of the quantized linears, and of embedding and head where they are in codes, scales and zeros included
  uint64_t float_bytes = 0, quantized_bytes = 0;  // of all linears in blocks
  uint64_t model_float_bytes = 0, model_bytes = 0;  // of all tensors, as the model stores those that are not in codes; 0: not known
  int64_t calibration_tokens = 0;
  int64_t statistics_cached_blocks = 0;  // whose statistics an earlier run of the workspace had collected
  std::vector<BlockReport> blocks;
  std::vector<LinearReport> vocabulary;  // token embedding and head where they are in codes; block −1
  std::vector<EvaluationResult> evaluations;
  std::vector<StageCost> costs;
  Environment environment;
};

// Of a run's evaluations the first by this evaluator, of the quantized or of the float model; nullptr: none.
const EvaluationResult* find_evaluation(const RunReport& run, const std::string& evaluator, bool float_model);

}  // namespace qb
