#pragma once
#include "core/method/method.h"

namespace qb {

// Outlier Suppression+ (Wei et al. 2023, arXiv 2304.09145): shifts channels to their centre, scales the ones beyond a
// searched threshold down to it.
MethodInfo os_plus_info();
std::unique_ptr<Method> make_os_plus(const StageSpec& stage);

}  // namespace qb
