#pragma once
#include "core/method/method.h"

namespace qb {

// HQQ (Badri & Shaji 2023): zero points by half-quadratic splitting, without data.
MethodInfo hqq_info();
std::unique_ptr<Method> make_hqq(const StageSpec& stage);

}  // namespace qb
