#pragma once
#include "views/pages/FieldGroup.h"

namespace qb::views {

enum class SpecRole { Weights, Activations, Cache };
using SpecAccess = std::function<QuantSpec*(Recipe&)>;  // nullptr: not quantized, no fields shown

// Adds the fields of one QuantSpec, each shown only where it has a meaning.
void addSpecFields(FieldGroup& group, const QString& key, SpecRole role, SpecAccess access);

QuantSpec defaultSpec(SpecRole role);

}  // namespace qb::views
