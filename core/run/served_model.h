#pragma once
#include "core/measure/report.h"
#include "core/model/model.h"
#include "core/quant/scheme.h"
#include "core/recipe/roofline.h"

namespace qb {

// A model under a scheme as an engine would serve it: codes with their scales, what stays float in 16 bits (or fewer where it is stored so).
// `run`: has the bits that its linears really took; nullptr: by the scheme. Activations in codes compute in their type.
ServedModel served_model(const Model& model, const Scheme& scheme, const RunReport* run = nullptr);

}  // namespace qb
