#pragma once
#include "core/method/method.h"

namespace qb {

// NVFP4 has one factor a weight, and engines that join linears of one input into one matrix have one for all of it: gives such
// linears of a block the largest of theirs. Factors are powers of two, so values stay what they are, but in groups whose scales
// are near the end of e4m3 (more than 2^13 below the weight's largest): those are rounded to the nearest that it has.
void join_factors(BlockWork& work);

}  // namespace qb
