#pragma once
#include "core/method/method.h"

namespace qb {

// TesseraQ (Li & Panda 2024, arXiv 2410.19103): learns which way each weight rounds, hardening the surest ones step by step,
// and the scales with them.
MethodInfo tesseraq_info();
std::unique_ptr<Method> make_tesseraq(const StageSpec& stage);

}  // namespace qb
