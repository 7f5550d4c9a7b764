#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/base/control.h"
#include "core/measure/sensitivity.h"
#include "core/recipe/recipe.h"

namespace qb {

// Surveys of sensitivity as a workspace keeps them: "sensitivity/NAME.json" by model, text and settings, as `qbench sensitivity -o` writes
// and `qbench allocate --sensitivity` reads. Torch-free.

struct SensitivityWish {
  Recipe recipe;                        // whose model and calibration text are surveyed; nothing else of it counts
  std::vector<std::string> candidates;  // empty: int2g64 … int8g64
  std::vector<std::string> rounding;    // methods; empty: rtn
  int64_t measured = 0;                 // linears that are measured by themselves, too
  std::string device = "cpu";
  int threads = 0;                      // of the CPU; 0: all
};

// The file that this survey will have in a workspace. Reads of the model what identifies it. Throws InputError where the recipe names no
// model or no calibration text.
std::filesystem::path sensitivity_file(const std::filesystem::path& workspace, const SensitivityWish& wish);

// Carries a survey out by `qbench sensitivity`, a process of its own that ends with this one, and follows it. What is done is kept: after a
// stop or a kill the same wish goes on there. Returns its file. Throws Cancelled, or what the survey failed with.
std::filesystem::path run_sensitivity(const std::filesystem::path& workspace, const SensitivityWish& wish, const Control& control, const std::filesystem::path& qbench);

struct StoredSensitivity {
  std::filesystem::path file;
  std::shared_ptr<const Sensitivity> survey;  // nullptr: it cannot be read,
  std::string problem;                        // and why
};
// Those of a model, by its hash, newest first, with those that cannot be read.
std::vector<StoredSensitivity> stored_sensitivities(const std::filesystem::path& workspace, const std::string& model_hash);

}  // namespace qb
