#pragma once
#include <filesystem>

#include "core/exporting/checkpoint.h"
#include "core/measure/report.h"
#include "core/quant/quantized_model.h"
#include "core/recipe/recipe.h"

namespace qb {

// A finished run as a value: its recipe, report and quantized model (the float model as the run's first stages changed it).
// run: a run folder. Throws InputError naming the folder where it is no run, or not finished.
struct FinishedRun {
  Recipe recipe;
  RunReport report;
  QuantizedModel model;
};
FinishedRun open_run(const std::filesystem::path& run, const Control& control = {});

// Title, recipe and figures of a run for the card of its checkpoint.
ModelCard card_of(const FinishedRun& run);

}  // namespace qb
