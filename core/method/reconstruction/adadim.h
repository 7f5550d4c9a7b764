#pragma once
#include "core/method/method.h"

namespace qb {

// AdaDim (Heo et al. 2023, arXiv 2309.15531): groups along inputs or along outputs, whichever costs a linear less.
MethodInfo adadim_info();
std::unique_ptr<Method> make_adadim(const StageSpec& stage);

}  // namespace qb
