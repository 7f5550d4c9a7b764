#pragma once
#include "core/method/method.h"

namespace qb {

// Norm Tweaking (Li et al. 2023, arXiv 2309.02784): after rounding, the norms learn to make up for it.
MethodInfo norm_tweaking_info();
std::unique_ptr<Method> make_norm_tweaking(const StageSpec& stage);

}  // namespace qb
