#pragma once
#include "core/method/method.h"
#include "core/method/model_change.h"

namespace qb {

// QuaRot (Ashkboos et al. 2024, arXiv 2404.00456): rotates the hidden states, which spreads outliers over all channels.
MethodInfo quarot_info();
std::unique_ptr<Method> make_quarot(const StageSpec& stage);
ModelChange quarot_change();
// The values of a layer that the stage rotates at run time.
std::vector<ValueId> quarot_online(const StageSpec& stage, const LayerGraph& graph, const std::vector<LinearSpec>& linears);

}  // namespace qb
