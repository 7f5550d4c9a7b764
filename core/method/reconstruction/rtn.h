#pragma once
#include "core/method/method.h"

namespace qb {

// Round to nearest on the grid that the scheme's range method, or an earlier clipping stage, gives.
MethodInfo rtn_info();
std::unique_ptr<Method> make_rtn(const StageSpec& stage);

}  // namespace qb
