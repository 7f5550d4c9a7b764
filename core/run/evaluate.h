#pragma once
#include <functional>
#include <memory>

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
};

// One entry of an evaluation list, by its evaluator. `estimate` gets the running figure. Throws InputError as the evaluator does.
EvaluationResult evaluate(const EvaluationSpec& spec, const RunText& text, const MeasuredModel& measured, at::Device device, const Control& control,
                          const std::function<void(const EvaluationResult&)>& estimate = {});

}  // namespace qb
