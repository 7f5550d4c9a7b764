#pragma once
#include "core/method/method.h"

namespace qb {

// SpQR (Dettmers et al. 2023, arXiv 2306.03078): GPTQ in small groups whose scales and zero points are quantized too, with
// the weights whose rounding would cost most kept apart in float16.
MethodInfo spqr_info();
std::unique_ptr<Method> make_spqr(const StageSpec& stage);

}  // namespace qb
