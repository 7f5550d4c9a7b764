#pragma once
#include "core/recipe/recipe.h"

namespace qb {

// Whether a stage weighs errors by the inputs' mean squares, of a text or of the file that calibration.importance names.
bool weighs_by_inputs(const StageSpec& stage);

}  // namespace qb
