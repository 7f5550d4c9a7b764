#pragma once
#include "core/method/method.h"

namespace qb {

// DGQ (Zhang et al. 2023, arXiv 2310.04836): 4-bit groups whose scales are integers inside an 8-bit channel.
MethodInfo dgq_info();
std::unique_ptr<Method> make_dgq(const StageSpec& stage);

}  // namespace qb
