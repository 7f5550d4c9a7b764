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

}  // namespace qb
