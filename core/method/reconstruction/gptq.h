#pragma once
#include "core/method/method.h"

namespace qb {

// GPTQ (Frantar et al. 2022, arXiv 2210.17323) on every quantized linear.
MethodInfo gptq_info();
std::unique_ptr<Method> make_gptq(const StageSpec& stage);

}  // namespace qb
