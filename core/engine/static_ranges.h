#pragma once
#include "core/engine/hidden_states.h"
#include "core/method/method.h"

namespace qb {

// Fixes the grid of every static input of a block whose stages are through, and of its keys and values where those are static: the
// smallest and largest value over all batches as the quantized block makes it, with what comes before it on its grid. Linears that read one value share its
// grid; keys and values have one each, or one for each head. What no token reaches (an expert's) gets the range of its likes together, and a note. Throws InputError where there is
// none, or the input is not finite.
void fix_ranges(BlockWork& work, const HiddenStates& inputs);

}  // namespace qb
