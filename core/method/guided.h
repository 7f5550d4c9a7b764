#pragma once
#include <vector>

#include "core/method/method.h"

namespace qb {

// What a stage wants guided statistics to be.
struct GuidedWish {
  int64_t groups = 1;   // of output rows, with weights of tokens of their own
  int64_t samples = 0;  // the first, on which gradients are taken; 0: all
};

// Of a method that searches on Gram matrices: `statistics`, `guided_groups`, `guided_samples`.
void add_guided_knobs(MethodInfo& method);
// nullopt: the stage wants plain statistics.
std::optional<GuidedWish> guided_wish(const StageSpec& stage);
// What all stages of a pipeline share; nullopt: none is guided.
std::optional<GuidedWish> guided_wish(const std::vector<StageSpec>& pipeline);
// What the stage asks the calibration pass for.
constexpr Statistics gram_statistic(bool guided) { return static_cast<Statistics>(guided ? Statistic::guided : Statistic::gram); }

// The Gram matrix that counts for output rows [first, last) of a linear.
struct RowGram {
  int64_t first = 0, last = 0;
  at::Tensor gram;  // [in, in]
};

// Over all rows of a linear, in order: one, or one a group where statistics are guided. Empty: no calibration token came.
std::vector<RowGram> row_grams(const BlockWork& work, const LinearWork& linear, bool guided);
// One for all rows: of guided ones the mean, each counting what its rows count.
at::Tensor joint_gram(const std::vector<RowGram>& grams, const LinearWork& linear);
// What a squared error of each output counts, in the coordinates that the output has by now [out]; undefined where statistics are plain.
at::Tensor output_weight(const LinearWork& linear, bool guided);

// d·G·dᵀ of each row of difference [out, in], [out, in] before its columns are summed up.
at::Tensor row_products(const at::Tensor& difference, const std::vector<RowGram>& grams);

}  // namespace qb
