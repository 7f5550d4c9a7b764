#pragma once
#include "core/method/method.h"

namespace qb {

// Rounds a linear that has a spec to nearest: on the range that a clipping stage left, else on the scheme's own.
void round_to_nearest(const BlockWork& work, LinearWork& linear);

// Round to nearest on the grid that the scheme's range method, or an earlier clipping stage, gives.
MethodInfo rtn_info();
std::unique_ptr<Method> make_rtn(const StageSpec& stage);

}  // namespace qb
