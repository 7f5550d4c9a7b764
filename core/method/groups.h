#pragma once
#include "core/method/method.h"

namespace qb {

// Output error that each group of columns adds by itself, on its own block of the Gram matrix [in, in]: d·G·dᵀ for the group's
// part d of difference [out, in]. [out, in/group].
at::Tensor group_errors(const at::Tensor& difference, const at::Tensor& gram, int64_t group);

// What a method says of a linear that it can only give integer codes in groups; empty when it has them or stays float.
std::string integer_groups_problem(const std::optional<QuantSpec>& spec, const char* method);

}  // namespace qb
