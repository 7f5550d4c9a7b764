#pragma once
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "core/quant/scheme.h"

namespace qb {

// How much each linear of a model suffers under candidate schemes, as torch-free values: stored as JSON.

// A scheme in short: the number's type, then "g64" (groups of so many inputs), "c" (output channels) or "t" (the whole tensor), then "s"
// where it is symmetric: "int4g64", "int8cs", "e4m3c". Or a storage type: "q4_K". nullopt: neither.
std::optional<QuantSpec> parse_candidate(const std::string& text);
// The same, for whoever has a list of them. Throws InputError naming the one that is none, or that stands there twice.
std::vector<QuantSpec> parse_candidates(const std::vector<std::string>& texts);

inline constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

// What one candidate does to one linear. NaN: not found out.
struct CandidateSensitivity {
  std::string candidate;
  int64_t bits = 0;                  // storage of the whole weight, scales and zero points included
  double output_error = 0;           // tr(ΔW·G·ΔWᵀ) a token: the mean squared length of the output's error
  double relative_error = 0;         // that as a share of tr(W·G·Wᵀ)
  double fisher = kUnknown;          // KL divergence to expect, nats a token: ½ Σ_o f_o · ΔW_o·G·ΔW_oᵀ, each output by its Fisher weight f_o
  double guided = kUnknown;          // the same with each token's weight, too: inputs of tokens that matter count more in G
  double measured = kUnknown;        // KL divergence with this linear alone quantized, nats a token
  double measured_error = kUnknown;  // its standard error over the windows
};

struct LinearSensitivity {
  int block = 0;
  std::string name;          // inside its block
  std::string module;        // "model.layers.0.self_attn.q_proj"
  int input = 0;             // what it reads: linears of a block with the same one share their input
  bool expert = false;
  int64_t out_features = 0, in_features = 0;
  int64_t tokens = 0;        // of the text that reached it; 0: nothing is known of it
  std::vector<CandidateSensitivity> candidates;  // those that fit its size, in the order asked for
  const CandidateSensitivity* find(const std::string& candidate) const;
};

// Spearman's, of two measures over linears under one candidate, or (empty) under all.
struct RankCorrelation {
  std::string first, second;   // "relative_error", "fisher", "guided", "measured"
  std::string candidate;
  int64_t pairs = 0;
  double value = kUnknown;
};

struct Sensitivity {
  std::string model_path, model_name, model_hash;
  std::string corpus, calibration_hash;
  int64_t samples = 0, seq_len = 0, tokens = 0;
  std::string dtype;
  std::string rounding;        // methods that rounded: "rtn", "clip → gptq"
  std::string loss;            // what gradients were taken of: "kl", "cross_entropy"; empty: none were
  uint64_t seed = 0;
  int64_t measured_windows = 0;
  std::vector<std::string> candidates;
  std::vector<LinearSensitivity> linears;
  std::vector<RankCorrelation> correlations;
  int64_t other_bytes = 0;         // of the model's tensors outside of these linears
  int64_t other_read_bytes = 0;    // those of them that one token of decoding reads: all but an embedding that is not the head
  int64_t experts = 0, experts_per_token = 0;
  double seconds = 0;
};

std::string to_json(const Sensitivity& sensitivity);
std::string to_json(const LinearSensitivity& linear);
// Throw InputError naming `origin` and what is wrong.
Sensitivity sensitivity_from_json(const std::string& json, const std::string& origin);
LinearSensitivity linear_sensitivity_from_json(const std::string& json, const std::string& origin);

// Spearman's rank correlation; equal values share their mean rank. NaN below three pairs or where one side is constant.
double spearman(const std::vector<double>& a, const std::vector<double>& b);
// Of all measures that were found, candidate by candidate and over all.
std::vector<RankCorrelation> rank_correlations(const Sensitivity& sensitivity);

}  // namespace qb
