#pragma once
#include "core/method/method.h"

namespace qb {

// QUIK (Ashkboos et al. 2023, arXiv 2310.09259): GPTQ with the input columns of the largest activations kept in float16.
MethodInfo quik_info();
std::unique_ptr<Method> make_quik(const StageSpec& stage);

}  // namespace qb
