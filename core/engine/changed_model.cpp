#include "core/base/error.h"
#include "core/base/files.h"
#include "core/engine/engine.h"
#include "core/engine/run_state.h"
#include "core/method/contracts.h"
#include "core/method/model_change.h"

namespace qb {

std::shared_ptr<const Model> changed_model(const std::shared_ptr<const Model>& model, const std::vector<StageSpec>& pipeline, const TokenSet& calibration,
                                           uint64_t seed, const std::filesystem::path& folder, const Control& control) {
  if (const auto problem = pipeline_problem(pipeline, {})) throw InputError("pipeline: " + problem->what);
  std::shared_ptr<const Model> changed = model;
  for (size_t i = 0; i < pipeline.size(); ++i) {
    const ModelChange* change = model_change(pipeline[i].method);
    if (!change) continue;
    std::string plan;
    if (change->plan) {
      const auto path = plan_path(folder, i, pipeline[i].method);
      if (std::filesystem::exists(path)) {
        plan = read_text(path);
      } else {
        plan = change->plan(pipeline[i], changed, calibration.samples, seed, control);
        write_atomically(path, plan);
      }
    }
    changed = change->apply(pipeline[i], changed, plan, seed + i);
  }
  return changed;
}

}  // namespace qb
