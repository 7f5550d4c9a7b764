#pragma once
#include <string>
#include <vector>

#include "core/base/knob.h"
#include "core/measure/metric_info.h"

namespace qb {

// What an evaluator measures on: `corpus` names it.
enum class EvaluationData { text, task };

// One way to measure a model. A recipe's evaluation list, its validation, the form, the command line and the help are made from
// this table; windows, their length, dtype and BOS are common to all that have them. Torch-free.
struct EvaluatorInfo {
  std::string name;               // its key in recipes
  std::string title;              // for people
  std::string help;               // one line
  EvaluationData data = EvaluationData::text;
  bool against_float = false;     // measures a distance from the float model
  std::vector<KnobInfo> knobs;    // of its own
  std::vector<MetricInfo> metrics;  // the first stands for the whole
  std::vector<std::string> headline;  // those that a summary shows
};

// The metric of a float model's divergence from itself with weights rounded to bfloat16.
inline constexpr const char* kWeightsFloor = "kl_bfloat16_weights";

const std::vector<EvaluatorInfo>& evaluators();
const EvaluatorInfo* find_evaluator(const std::string& name);  // nullptr: there is none
std::string unknown_evaluator(const std::string& found);          // one sentence with the nearest name
const KnobInfo* find_knob(const EvaluatorInfo& evaluator, const std::string& name);
const MetricInfo* find_metric(const std::string& evaluator, const std::string& metric);

}  // namespace qb
