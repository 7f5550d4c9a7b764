#include <fmt/format.h>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/engine/engine.h"
#include "core/engine/run_state.h"
#include "core/method/model_change.h"

namespace qb {

std::shared_ptr<const Model> changed_model(const std::shared_ptr<const Model>& model, const std::vector<StageSpec>& pipeline, const TokenSet& calibration,
                                           uint64_t seed, const std::filesystem::path& folder, const Control& control) {
  std::shared_ptr<const Model> changed = model;
  bool blocks_began = false;
  for (size_t i = 0; i < pipeline.size(); ++i) {
    const ModelChange* change = model_change(pipeline[i].method);
    if (!change) {
      blocks_began = true;
      continue;
    }
    // The whole model is there before its first block is worked on.
    if (blocks_began) throw InputError(fmt::format("pipeline: {} changes the whole model and must stand before {}", pipeline[i].method, pipeline[i - 1].method));
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
