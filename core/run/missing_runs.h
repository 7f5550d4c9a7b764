#pragma once
#include <string>
#include <vector>

#include "core/run/best_practice.h"

namespace qb {

// The paper's decision rule (LLM-QBench, section "best practice") on what a workspace has: calibrate on text like the use (takeaway 1); transform,
// then clip, then reconstruct, learning only where that is not enough (2); widths that practice takes, by the hardware (3). What the rule asks for
// and no run of the model answers is a missing run. Torch-free.

enum class Takeaway { data = 1, pipeline = 2, scheme = 3 };
std::string to_text(Takeaway value);  // "calibration data", "pipeline", "scheme"

struct MissingRun {
  Recipe recipe;             // as it would be run: model, texts, seed and target are those of the run that it is compared with
  Takeaway takeaway = Takeaway::pipeline;
  std::string why;           // one sentence
};
struct MissingRuns {
  std::vector<MissingRun> runs;      // the most telling first
  std::vector<std::string> advice;   // what no recipe can be made of: texts that only the user has, figures that mislead
};

// found: of best_practice(). Runs of any state count as answered, but failed ones. Filters of `wanted` hold for what is proposed.
MissingRuns missing_runs(const Workspace& workspace, const BestPractice& found, const BestWanted& wanted);

}  // namespace qb
