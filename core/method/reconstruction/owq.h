#pragma once
#include "core/method/method.h"

namespace qb {

// OWQ (Lee et al. 2023, arXiv 2306.02272): GPTQ with the most sensitive input columns kept in float16.
MethodInfo owq_info();
std::unique_ptr<Method> make_owq(const StageSpec& stage);

}  // namespace qb
