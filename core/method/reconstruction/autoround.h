#pragma once
#include "core/method/method.h"

namespace qb {

// SignRound (Cheng et al. 2023, arXiv 2309.05516), known as AutoRound: learns each weight's rounding and each unit's range
// by signed gradients of the block's output error.
MethodInfo autoround_info();
std::unique_ptr<Method> make_autoround(const StageSpec& stage);

}  // namespace qb
