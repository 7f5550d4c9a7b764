#pragma once
#include "core/method/method.h"

namespace qb {

// SmoothQuant (Xiao et al. 2022, arXiv 2211.10438): moves the size of activations into the weights.
MethodInfo smoothquant_info();
std::unique_ptr<Method> make_smoothquant(const StageSpec& stage);

}  // namespace qb
