#pragma once
#include "core/method/method.h"

namespace qb {

// Output error that each group of columns adds by itself, on its own block of the Gram matrix [in, in]: d·G·dᵀ for the group's
// part d of difference [out, in]. [out, in/group].
at::Tensor group_errors(const at::Tensor& difference, const at::Tensor& gram, int64_t group);

// Throws InputError that names the linear unless it has integer codes in groups.
void require_integer_groups(const LinearWork& linear, const char* method);

}  // namespace qb
