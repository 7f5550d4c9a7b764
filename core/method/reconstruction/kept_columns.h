#pragma once
#include <functional>

#include "core/method/method.h"
#include "core/method/reconstruction/gptq_solver.h"

namespace qb {

// Which input columns of a linear stay float16: [k] int64, ascending. May be empty.
using ColumnChoice = std::function<at::Tensor(const LinearWork& linear, const ValueStatistics& statistics)>;

// GPTQ on every quantized linear that leaves the chosen columns in float16; they take up what rounding the others costs.
// Needs Statistic::gram. Rounds to nearest, and says so, where there is no usable Gram matrix.
void gptq_keeping_columns(BlockWork& work, const GptqOptions& options, const ColumnChoice& choose);

// The columns of the largest values [in].
at::Tensor largest_columns(const at::Tensor& values, int64_t count);

// A share of a linear's columns, rounded; one at least is left to be rounded.
int64_t columns_of_share(const LinearWork& linear, double share);

// What both of its methods let be set, as GPTQ has it.
std::vector<KnobInfo> solver_knobs();
GptqOptions solver_options(const StageSpec& stage);

}  // namespace qb
