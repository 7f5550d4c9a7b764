#pragma once
#include "core/method/method.h"
#include "core/method/reconstruction/gptq_solver.h"
#include "core/method/reconstruction/refinement.h"

namespace qb {

// GPTQ (Frantar et al. 2022, arXiv 2210.17323) on every quantized linear.
MethodInfo gptq_info();
GptqOptions gptq_options(const StageSpec& stage);
RefineOptions refine_options(const StageSpec& stage);
std::unique_ptr<Method> make_gptq(const StageSpec& stage);

}  // namespace qb
