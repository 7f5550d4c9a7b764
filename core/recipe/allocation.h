#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/measure/sensitivity.h"
#include "core/recipe/recipe.h"

namespace qb {

// One thing that may be chosen of a group: what it takes of the budget and what it costs.
struct BudgetChoice {
  int64_t size = 0;
  double cost = 0;  // ≥ 0, finite
};

// One choice of each group, of the least total cost within the budget; of equal cost the smaller. Exact: Pareto-optimal (size, cost) sums
// group by group, as dynamic programming over the budget has them, without those that the linear relaxation of what is left rules
// out (multiple-choice knapsack; Kellerer, Pferschy, Pisinger 2004, ch. 11). nullopt: even the smallest choices do not fit.
std::optional<std::vector<size_t>> best_choices(const std::vector<std::vector<BudgetChoice>>& groups, int64_t budget);

// What an assignment shall keep to; one of the three.
struct Budget {
  double bits = 0;                 // a weight of the linears, scales and zero points included
  double gib = 0;                  // of all of the model's tensors
  double tokens_per_second = 0;    // to expect of decoding one sequence, where reading the weights is all that takes time,
  double bandwidth = 0;            // from a memory of so many bytes a second
};

struct AllocationOptions {
  Budget budget;
  std::string cost = "guided";           // gram | fisher | guided | measured
  std::vector<std::string> candidates;   // of the sensitivity's; empty: all
  bool tied = true;                      // what engines join into one matrix has one scheme: linears of one input, experts of a layer
};

// What a whole model comes to under one assignment.
struct AllocationTotal {
  std::string name;                // "allocated", or of a uniform scheme its candidate
  double bits_per_weight = 0;      // of the linears
  int64_t bytes = 0, read_bytes = 0;  // of all tensors; that one token of decoding reads
  double predicted = 0;            // Σ of what `cost` says: KL divergence, or relative errors
  double tokens_per_second = 0;    // 0: no bandwidth is given
};

struct Allocation {
  std::vector<std::string> modules, candidates;  // of each linear, in the model's order
  AllocationTotal total;
  std::vector<AllocationTotal> uniform;          // of the candidates that all linears can have
};

const std::vector<std::string>& allocation_costs();

// Throws InputError where the budget cannot be met, naming the least that can, and where a cost is not known of a linear.
// scheme: linears that it keeps in float stay so, and count in bytes alone; nullptr: all are quantized.
Allocation allocate(const Sensitivity& sensitivity, const AllocationOptions& options, const Scheme* scheme = nullptr);

// The scheme with these weights: the most frequent candidate for all, overrides for the others: "*.mlp.down_proj" where all blocks
// agree, a regular expression of their numbers where some do. Overrides that it has are replaced.
Scheme allocated_scheme(const Allocation& allocation, const Sensitivity& sensitivity, Scheme scheme = {});

}  // namespace qb
