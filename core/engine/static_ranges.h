#pragma once
#include "core/engine/hidden_states.h"
#include "core/method/method.h"

namespace qb {

// Fixes the grid of every static input of a block whose stages are through: the smallest and largest value over all batches as
// the quantized block makes it, with the inputs of the linears before it on their grids. Linears that read one value share its
// grid. What no token reaches (an expert's) gets the range of its likes together, and a note. Throws InputError where there is
// none, or the input is not finite.
void fix_input_grids(BlockWork& work, const HiddenStates& inputs);

}  // namespace qb
