#pragma once
#include <optional>
#include <string>
#include <vector>

#include "core/recipe/hardware.h"
#include "core/recipe/roofline.h"
#include "core/store/run_table.h"
#include "core/store/workspace.h"

namespace qb {

// Which recipe to take home: the finished runs of one model that no other beats, one of them, and why others were left out. A value, for
// the command line, reports and pages. Torch-free.

struct BestWanted {
  RunColumns measures;                 // the most important first; empty: kl where runs have it, else ppl, then size and time
  double gigabytes = 0;                // that the model takes at most; 0: any
  std::optional<HardwareProfile> hardware;  // it must fit there
  SpeedCase conditions;
  double decode = 0;                   // predicted tokens/s there, at least
  std::string engine;                  // of export_engines(), which must load it in some format; empty: any
  double bits = 0;                     // per weight of the quantized linears, at most; 0: any
  double prefill = 0;                  // predicted tokens/s there, at least
};

struct BestCandidate {
  RunReport report;                    // without blocks
  std::vector<double> values;          // of the measures
  bool front = false;                  // no other beats it
  int beaten_by = -1;                  // the best of those that do
  std::optional<SpeedPrediction> speed;
  std::vector<std::string> formats;    // in which the engine loads it
};

struct LeftOut {
  std::string run, name, why;
};

struct BestPractice {
  RunColumns measures;
  std::vector<BestCandidate> runs;     // that have all measures, under one run's conditions
  int chosen = -1;                     // of them; −1: there is none
  std::vector<LeftOut> left_out;
};

// runs: heads of finished runs of one model, as list() has them. Throws InputError for runs of several models and for an engine that
// there is not.
BestPractice best_practice(const Workspace& workspace, const std::vector<RunReport>& runs, const BestWanted& wanted);

// Formats in which the engine loads what a recipe makes of its model; why not, where there is none.
struct LoadableFormats {
  std::vector<std::string> formats;
  std::string why;
};
LoadableFormats loadable_formats(const Recipe& recipe, const std::string& engine);

SpeedPrediction predicted_speed(const Workspace& workspace, const std::string& run, const HardwareProfile& hardware, const SpeedCase& conditions);

// "KL (nats) 0.02110, Size (MB) 98.2": the measures of a candidate.
std::string values_text(const BestCandidate& one, const RunColumns& measures);
std::string speed_text(const SpeedPrediction& speed, const std::string& hardware, const SpeedCase& conditions);
// By how much a run's figure differs from another's: "−0.0021 ± 0.0004", paired by window or item where the measure is of an evaluation.
std::string difference_text(const RunReport& run, const RunReport& other, const RunColumn& measure);
// Why the chosen one: one or two sentences.
std::string verdict(const BestPractice& found);
// Its recipe, with all of that as comments on top.
std::string recipe_with_evidence(const Workspace& workspace, const BestPractice& found, const BestWanted& wanted);
// The comments alone, a line each, for other programs' files.
std::vector<std::string> evidence(const BestPractice& found, const BestWanted& wanted);

}  // namespace qb
