#pragma once
#include "core/method/method.h"

namespace qb {

// AWQ's clipping search, as LLMC names it: per unit, the shrunk range of least output error.
MethodInfo clip_info();
std::unique_ptr<Method> make_clip(const StageSpec& stage);

}  // namespace qb
