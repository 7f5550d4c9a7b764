#pragma once
#include "core/method/method.h"

namespace qb {

// AWQ (Lin et al. 2023, arXiv 2306.00978): scales channels that carry large activations up before rounding.
MethodInfo awq_info();
std::unique_ptr<Method> make_awq(const StageSpec& stage);

}  // namespace qb
