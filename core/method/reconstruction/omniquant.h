#pragma once
#include "core/method/method.h"

namespace qb {

// OmniQuant (Shao et al. 2023, arXiv 2308.13137): learns clipping (LWC) and equivalent scalings (LET) on the block's output.
MethodInfo omniquant_info();
std::unique_ptr<Method> make_omniquant(const StageSpec& stage);

}  // namespace qb
