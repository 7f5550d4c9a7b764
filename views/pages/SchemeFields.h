#pragma once
#include "core/quant/spec_fields.h"
#include "views/pages/FieldGroup.h"

namespace qb::views {

using SpecAccess = std::function<QuantSpec*(Recipe&)>;  // nullptr: not quantized, no fields shown

// Adds the fields of one QuantSpec from core's table, each shown only where it has a meaning.
void addSpecFields(FieldGroup& group, const QString& key, SpecRole role, SpecAccess access);

}  // namespace qb::views
