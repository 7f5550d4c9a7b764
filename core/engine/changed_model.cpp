#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/engine/engine.h"
#include "core/engine/run_state.h"
#include "core/method/contracts.h"
#include "core/method/model_change.h"

namespace qb {
namespace {

// The first line; the second says of which job it is (older files have none).
std::string kept_plan(const std::filesystem::path& path, const std::string& fingerprint) {
  const std::string text = read_text(path);
  const size_t end = text.find('\n');
  const std::string of = end == std::string::npos ? std::string() : text.substr(end + 1);
  return fingerprint.empty() || of.empty() || of == fingerprint ? text.substr(0, end) : std::string();
}

}  // namespace

std::shared_ptr<const Model> changed_model(const EngineJob& job, const Control& control) {
  if (const auto problem = pipeline_problem(job.pipeline, {})) throw InputError("pipeline: " + problem->what);
  const std::string fingerprint = job.fingerprint.empty() ? std::string() : nlohmann::json(job.fingerprint).dump();
  std::shared_ptr<const Model> changed = job.model;
  for (size_t i = 0; i < job.pipeline.size(); ++i) {
    const StageSpec& stage = job.pipeline[i];
    const ModelChange* change = model_change(stage.method);
    if (!change) continue;
    std::string plan;
    if (change->plan) {
      const auto path = plan_path(job.folder, i, stage.method);
      if (std::filesystem::exists(path)) plan = kept_plan(path, fingerprint);
      if (plan.empty()) {
        plan = change->plan(stage, changed, job.calibration.samples, job.device, control);
        write_atomically(path, fingerprint.empty() ? plan : plan + "\n" + fingerprint);
      }
    }
    changed = change->apply(stage, changed, plan, job.seed + i);
  }
  return changed;
}

}  // namespace qb
