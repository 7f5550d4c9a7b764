#include "core/run/evaluate.h"

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/measure/perplexity.h"

namespace qb {

EvaluationResult evaluate(const EvaluationSpec& spec, const RunText& text, const MeasuredModel& measured, at::Device device, const Control& control,
                          const std::function<void(const EvaluationResult&)>& estimate) {
  const auto named = [&](EvaluationResult result) {
    result.evaluator = spec.evaluator;
    result.corpus = text.name;
    result.corpus_hash = text.hash;
    result.bos = to_text(text.bos);
    result.settings = all_knobs(spec);
    return result;
  };
  const auto tell = [&](const EvaluationResult& result) {
    if (estimate) estimate(named(result));
  };
  const at::ScalarType dtype = spec.dtype == "float32" ? at::kFloat : at::kBFloat16;
  if (spec.evaluator == "perplexity")
    return named(perplexity(measured.model, measured.source, text.ids, {spec.seq_len, spec.windows, dtype, device, measured.tap, measured.cache_tap}, control, tell));
  throw InternalError(fmt::format("evaluator {} has no function", spec.evaluator));
}

}  // namespace qb
