#pragma once
#include <vector>

#include "core/method/method_info.h"

namespace qb {

// The pipeline with plain rounding at its end where no stage rounds.
inline std::vector<StageSpec> complete_pipeline(std::vector<StageSpec> pipeline) {
  for (const StageSpec& stage : pipeline)
    if (const MethodInfo* method = find_method(stage.method); method && method->rounds) return pipeline;
  pipeline.push_back({"rtn", {}});
  return pipeline;
}

// The stage that learns on the finished model; nullptr when there is none.
inline const StageSpec* finishing_stage(const std::vector<StageSpec>& pipeline) {
  return pipeline.empty() || !find_method(pipeline.back().method)->finishing ? nullptr : &pipeline.back();
}

}  // namespace qb
