#pragma once
#include "core/method/method.h"

namespace qb {

// Sets the least important weights to zero; stages after it keep them there.
MethodInfo magnitude_info();
std::unique_ptr<Method> make_magnitude(const StageSpec& stage);

// Wanda (Sun et al. 2023, arXiv 2306.11695): importance |w|·‖x‖₂, compared within an output row.
MethodInfo wanda_info();
std::unique_ptr<Method> make_wanda(const StageSpec& stage);

// True where weights stay: all but the share `sparsity` of least importance of each row (of the whole matrix when !by_row),
// or the n largest of every m in a row. importance: [out, in].
at::Tensor kept_weights(const at::Tensor& importance, double sparsity, bool by_row, int64_t n, int64_t m);

}  // namespace qb
