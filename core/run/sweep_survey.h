#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/recipe/sweep.h"
#include "core/run/estimates.h"
#include "core/run/run_plan.h"

namespace qb {

// A recipe of a sweep as it stands on this machine and in its workspace.
struct SweepRow {
  enum class State { fresh, stopped, at_work, done };  // stopped: a run of it can go on; at_work: in this process or another
  SweepRecipe entry;
  std::optional<RunPlan> plan;   // absent: it cannot be carried out
  std::string refusal;           // why
  ErrorKind refusal_kind = ErrorKind::input;
  State state = State::fresh;
  std::string run;               // the workspace's run of the same recipe; empty: none
  CostEstimate cost;
  bool waits() const { return plan && (state == State::fresh || state == State::stopped); }
};
std::string to_text(SweepRow::State state);  // "", "to go on", "at work", "done"

// Recipes with one reason why they are not carried out, for a line each: "g48 rtn, g48 gptq and 14 more".
struct SweepReason {
  std::vector<std::string> names;
  std::string why;
};
std::string names_text(const SweepReason& reason);
std::vector<SweepReason> refusals(const std::vector<SweepRow>& rows);
std::vector<SweepReason> omissions(const Sweep& sweep, bool filtered);  // by the file's filters, or others
// A value as a table shows it: of a file its name.
std::string shown_value(const SweepValue& value);

// Checks every recipe against its model, texts and machine; told(done, all) before each. Rows of `known` that have a plan are taken over.
std::vector<SweepRow> plan_sweep(const Sweep& sweep, RunPlanner& planner, std::vector<SweepRow> known = {}, const std::function<void(size_t, size_t)>& told = {});
// What the workspace has of each: a finished run of the same recipe on the same model, else one at work, else one to go on with.
void find_runs(std::vector<SweepRow>& rows, const Workspace& workspace);
// In the order of the rows; those that are done leave what the others can use. workspace: nullptr where there is none yet.
void estimate_costs(std::vector<SweepRow>& rows, const Workspace* workspace, const std::string& device);

}  // namespace qb
