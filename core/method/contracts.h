#pragma once
#include <optional>
#include <string>
#include <vector>

#include "core/method/method_info.h"
#include "core/quant/scheme.h"

namespace qb {

struct PipelineProblem {
  size_t stage = 0;  // that cannot stand where it does
  std::string what;  // one sentence; names the stages and why
};
// The one check of stages against each other and against the scheme, over the methods' contracts. Stages of unknown methods are
// passed over.
std::optional<PipelineProblem> pipeline_problem(const std::vector<StageSpec>& pipeline, const Scheme& scheme);

// Where a further stage can stand: behind the last stage of its class or an earlier one, else as late as the others let it.
// Nothing when there is no such place.
std::optional<size_t> place_for(const StageSpec& stage, const std::vector<StageSpec>& pipeline, const Scheme& scheme);

// The pipeline with plain rounding where no stage rounds: before the first that needs codes, or at the end.
std::vector<StageSpec> complete_pipeline(std::vector<StageSpec> pipeline);

// The stage that learns on the finished model; nullptr when there is none.
const StageSpec* finishing_stage(const std::vector<StageSpec>& pipeline);

}  // namespace qb
