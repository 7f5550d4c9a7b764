#pragma once
#include <optional>
#include <string>
#include <vector>

#include "core/store/run_table.h"

namespace qb {

// Runs that no other one beats, by figures of the table of runs: the first says how good a run is, the others what it costs. Torch-free.
struct ParetoRun {
  const RunReport* run = nullptr;
  std::vector<double> values;          // of the measures, in their order
  bool front = false;                  // nobody beats it
  const RunReport* beaten_by = nullptr;  // the best of those that do
};

// How two runs compare by one measure: below 0 the first is better, above 0 the second. A difference within twice its paired error is none
// (0): perplexity by the losses of windows, divergence by windows, tasks by items. Others have no error.
int better(const RunReport& first, const RunReport& second, const RunColumn& measure);
// The standard error of the difference between two runs' figures, paired as above; perplexity's is that of its logarithm times the second's.
// nullopt: the measure has none, or they stand under other conditions.
std::optional<double> paired_error(const RunReport& first, const RunReport& second, const RunColumn& measure);
// One run beats another where it is better by one measure and by none worse. Runs that lack a figure, or whose figures stand under other
// conditions than the first run's, are left out. Throws InputError for a measure that is no figure, and for runs of several models.
std::vector<ParetoRun> pareto(const std::vector<const RunReport*>& runs, const std::vector<const RunColumn*>& measures);
// Which of the front to take: of those that are not worse than the best by the first measure the one with the least of the next, and so on.
// nullptr: there is none.
const ParetoRun* recommended(const std::vector<ParetoRun>& runs, const std::vector<const RunColumn*>& measures);

}  // namespace qb
