#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "core/base/control.h"
#include "core/measure/evaluation.h"
#include "core/model/decoder.h"
#include "core/recipe/recipe.h"
#include "core/run/run_inputs.h"

namespace qb {

// A model as it is measured: weights that `source` has in place of the model's own, inputs and cache rounded by the taps.
struct MeasuredModel {
  std::shared_ptr<const Model> model;
  TensorSourcePtr source;
  LinearTap tap = {};
  CacheTap cache_tap = {};
  bool by_token = true;  // the taps look at one token at a time
};

// The float model that distances are taken from, and where what it hands to its head is kept for others (empty: nowhere).
struct ReferenceModel {
  std::shared_ptr<const Model> model;
  std::string hash;
  std::filesystem::path cache = {};
};

using OnEstimate = std::function<void(const EvaluationResult&)>;  // gets the running figure

// One entry of an evaluation list, by its evaluator. Throws InputError as the evaluator does.
EvaluationResult evaluate(const EvaluationSpec& spec, const RunText& text, const MeasuredModel& measured, const ReferenceModel& reference, at::Device device, const Control& control,
                          const OnEstimate& estimate = {});
// What stands beside it for the float model: the same figure of it; of a distance from it the noise floor, how far it is from itself in the
// dtype of the evaluation (where that is float32: with weights rounded to bfloat16).
EvaluationResult evaluate_float(const EvaluationSpec& spec, const RunText& text, const ReferenceModel& reference, at::Device device, const Control& control, const OnEstimate& estimate = {});

}  // namespace qb
