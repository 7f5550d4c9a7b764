#include "core/run/evaluate.h"

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/measure/divergence.h"
#include "core/measure/evaluators.h"
#include "core/measure/perplexity.h"
#include "core/measure/task.h"

namespace qb {
namespace {

EvaluationResult named(EvaluationResult result, const EvaluationSpec& spec, const RunText& text) {
  result.evaluator = spec.evaluator;
  result.corpus = text.name;
  result.corpus_hash = text.hash;
  result.bos = to_text(text.bos);
  result.settings = text.settings(spec);
  return result;
}

WindowSpec windows_of(const EvaluationSpec& spec, at::Device device) { return {spec.seq_len, spec.windows, spec.dtype == "float32" ? at::kFloat : at::kBFloat16, device}; }

DivergenceSpec divergence_of(const EvaluationSpec& spec, const ReferenceModel& reference, at::Device device) {
  return {windows_of(spec, device), *parse_scored(to_text(knob(spec, "scored"))), reference.cache, reference.hash};
}

}  // namespace

EvaluationResult evaluate(const EvaluationSpec& spec, const RunText& text, const MeasuredModel& measured, const ReferenceModel& reference, at::Device device, const Control& control,
                          const OnEstimate& estimate) {
  const OnEstimate tell = [&](const EvaluationResult& result) {
    if (estimate) estimate(named(result, spec, text));
  };
  WindowSpec windows = windows_of(spec, device);
  windows.tap = measured.tap;
  windows.cache_tap = measured.cache_tap;
  if (spec.evaluator == "perplexity") return named(perplexity(measured.model, measured.source, text.ids, windows, control, tell), spec, text);
  if (spec.evaluator == "divergence") {
    DivergenceSpec settings = divergence_of(spec, reference, device);
    settings.window = windows;
    return named(divergence(measured.model, measured.source, reference.model, text.ids, settings, control, tell), spec, text);
  }
  if (spec.evaluator == "task") {
    const ContinuationSpec settings{.dtype = windows.dtype, .device = device, .tap = measured.tap, .cache_tap = measured.cache_tap, .by_token = measured.by_token};
    return named(evaluate_task(measured.model, measured.source, *text.tokenizer, *text.task, settings, control).evaluation, spec, text);
  }
  throw InternalError(fmt::format("evaluator {} has no function", spec.evaluator));
}

EvaluationResult evaluate_float(const EvaluationSpec& spec, const RunText& text, const ReferenceModel& reference, at::Device device, const Control& control, const OnEstimate& estimate) {
  if (spec.evaluator != "divergence") return evaluate(spec, text, {reference.model, reference.model->source}, reference, device, control, estimate);
  const NoiseFloor floor = noise_floor(reference.model, text.ids, divergence_of(spec, reference, device), control);
  EvaluationResult result = floor.dtype ? *floor.dtype : floor.weights;
  result.dtype = spec.dtype;  // under whose conditions it stands, whatever it is made of
  result.put({kWeightsFloor, floor.weights.value("kl"), floor.weights.error("kl")});
  return named(std::move(result), spec, text);
}

}  // namespace qb
