#pragma once
#include <ATen/ATen.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/base/control.h"
#include "core/engine/gradient_walk.h"
#include "core/measure/sensitivity.h"
#include "core/method/method_info.h"
#include "core/model/model.h"
#include "core/text/corpus.h"

namespace qb {

struct SensitivityOptions {
  std::vector<std::string> candidates = {"int2g64", "int3g64", "int4g64", "int5g64", "int6g64", "int8g64"};
  // What rounds the weights, block by block: stages that need no hidden states. A scaling among them is taken back out of the errors.
  std::vector<StageSpec> rounding = {{"rtn", {}}};
  EndLoss loss = EndLoss::kl;
  int64_t measured = 0;                         // so many linears, spread over depth and kinds, are measured
  std::vector<std::string> measured_modules;    // and those that match one of these patterns
  std::vector<std::string> measured_candidates; // under these; empty: under all
  int64_t measured_windows = 4;                 // of the calibration text
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  uint64_t seed = 42;                           // of the drawn gradients
  int64_t resident_bytes = int64_t{2} << 30;    // of hidden states and gradients, each; above they are in files
  // What is done is kept below it, by model, text and settings, and not done again. Hidden states in front of every block stay there
  // until all is done: blocks · tokens · width numbers.
  std::filesystem::path folder;
};

// Forward through the float model, then (unless loss is none) backward, one block in memory at a time; then the measurements, each of
// which computes the blocks behind its linear alone. Durable after every block and every measured linear. Throws InputError for a
// candidate that is none or fits no linear, and for stages that need more than statistics.
Sensitivity measure_sensitivity(const std::shared_ptr<const Model>& model, const TokenSet& tokens, const SensitivityOptions& options, const Control& control = {});

}  // namespace qb
