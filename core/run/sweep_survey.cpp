#include "core/run/sweep_survey.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "core/store/run_request.h"

namespace qb {

std::string to_text(SweepRow::State state) {
  switch (state) {
    case SweepRow::State::fresh: return "";
    case SweepRow::State::stopped: return "to go on";
    case SweepRow::State::at_work: return "at work";
    case SweepRow::State::done: return "done";
  }
  throw InternalError("unknown state of a sweep's recipe");
}

std::string names_text(const SweepReason& reason) {
  constexpr size_t kShown = 3;
  std::string text;
  const size_t shown = reason.names.size() <= kShown + 1 ? reason.names.size() : kShown;
  for (size_t i = 0; i < shown; ++i) text += (i == 0 ? "" : ", ") + reason.names[i];
  return shown < reason.names.size() ? fmt::format("{} and {} more", text, reason.names.size() - shown) : text;
}

namespace {

void add(std::vector<SweepReason>& reasons, const std::string& name, const std::string& why) {
  const auto found = std::find_if(reasons.begin(), reasons.end(), [&](const SweepReason& reason) { return reason.why == why; });
  (found == reasons.end() ? reasons.emplace_back(SweepReason{{}, why}) : *found).names.push_back(name);
}

}  // namespace

std::vector<SweepReason> refusals(const std::vector<SweepRow>& rows) {
  std::vector<SweepReason> reasons;
  for (const SweepRow& row : rows)
    if (!row.plan) add(reasons, row.entry.recipe.name, row.refusal);
  return reasons;
}

std::vector<SweepReason> omissions(const Sweep& sweep, bool filtered) {
  std::vector<SweepReason> reasons;
  for (const SweepOmission& omission : sweep.omitted)
    if (omission.filtered == filtered) add(reasons, omission.name, omission.reason);
  return reasons;
}

std::string shown_value(const SweepValue& value) {
  const bool file = value.key == "model" || value.key == "model.path" || value.key == "checkpoint" || value.key == "calibration.importance" || value.key.ends_with("corpus");
  if (!file || value.value.find('{') != std::string::npos) return value.value;
  const std::filesystem::path path = std::filesystem::path(value.value).lexically_normal();
  return path.filename().empty() ? path.parent_path().filename().string() : path.filename().string();
}

std::vector<SweepRow> plan_sweep(const Sweep& sweep, RunPlanner& planner, std::vector<SweepRow> known, const std::function<void(size_t, size_t)>& told) {
  std::map<std::string, SweepRow> by_hash;
  for (SweepRow& row : known)
    if (row.plan) by_hash.emplace(recipe_hash(row.entry.recipe), std::move(row));
  std::vector<SweepRow> rows;
  for (const SweepRecipe& entry : sweep.recipes) {
    if (told) told(rows.size(), sweep.recipes.size());
    SweepRow& row = rows.emplace_back();
    if (const auto found = by_hash.find(recipe_hash(entry.recipe)); found != by_hash.end()) row = std::move(found->second);
    row.entry = entry;
    if (row.plan) continue;
    try {
      row.plan = planner.plan(entry.recipe);
    } catch (const Cancelled&) {
      throw;
    } catch (const Error& e) {
      const auto* mistake = dynamic_cast<const RecipeError*>(&e);
      row.refusal = mistake && mistake->file().empty() ? mistake->key() + ": " + mistake->detail() : e.what();
      row.refusal_kind = e.kind();
    }
  }
  return rows;
}

namespace {

bool waits_at_a_cluster(const std::filesystem::path& run) {
  const auto request = readable_request(run);
  return request && request->device == "slurm";
}

}  // namespace

void find_runs(std::vector<SweepRow>& rows, const Workspace& workspace) {
  std::map<std::string, std::vector<RunReport>> by_hash;  // newest first
  for (RunReport& head : workspace.list()) by_hash[head.recipe_hash].push_back(std::move(head));
  for (SweepRow& row : rows) {
    row.run.clear();
    row.state = SweepRow::State::fresh;
    if (!row.plan) continue;
    // A run that has not begun has the hash of its recipe before its target filled it in.
    for (const std::string& hash : {row.plan->recipe_hash, recipe_hash(row.entry.recipe)}) {
      const auto found = by_hash.find(hash);
      if (found == by_hash.end()) continue;
      for (const RunReport& head : found->second) {
        if (!head.model_hash.empty() && head.model_hash != row.plan->model_hash) continue;  // the model's files are others now
        const SweepRow::State state = head.status == RunStatus::finished ? SweepRow::State::done : workspace.owner(head.id) || waits_at_a_cluster(workspace.run_folder(head.id)) ? SweepRow::State::at_work : SweepRow::State::stopped;
        if (state <= row.state) continue;
        row.state = state;
        row.run = head.id;
      }
    }
  }
}

void estimate_costs(std::vector<SweepRow>& rows, const Workspace* workspace, const std::string& device) {
  Estimator estimator(workspace ? Timings::of(*workspace) : Timings(), device);
  for (SweepRow& row : rows)
    if (row.plan) row.cost = estimator.next(*row.plan);
}

}  // namespace qb
