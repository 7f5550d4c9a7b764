#pragma once
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "core/run/best_practice.h"
#include "core/run/missing_runs.h"
#include "views/jobs/Services.h"

namespace qb::views {

// Which of a workspace's runs to take home, and what the paper's rule still asks for.
struct BestQuestion {
  BestWanted wanted;
  std::string hardware;           // a profile's name; empty: any
  std::string quality;            // key of the measure that decides; empty: divergence where runs have it, else perplexity
  std::string calibration;        // text that it was calibrated on; empty: any
  std::vector<std::string> runs;  // finished ones of one model
};
struct BestAnswer {
  BestWanted wanted;              // with its hardware and measures
  BestPractice found;
  MissingRuns missing;
  std::vector<std::string> calibrations;  // by run of `found`, "" for none
  std::vector<std::string> texts;         // that runs were calibrated on
};
// May be slow: only on worker threads.
using BestChooser = std::function<BestAnswer(const WorkspacePtr&, const BestQuestion&, const std::stop_token&)>;
BestAnswer chooseBest(const WorkspacePtr& workspace, const BestQuestion& question, const std::stop_token& stop);

}  // namespace qb::views
