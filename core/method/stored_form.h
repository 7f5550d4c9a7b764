#pragma once
#include <string>
#include <vector>

#include "core/method/method_info.h"
#include "core/quant/scheme.h"

namespace qb {

// What a pipeline leaves of a linear, as far as it is known before a run.
struct StoredForm {
  QuantSpec weights;
  bool exceptions = false;  // columns or outliers in float16 beside the codes
  std::string made_by;      // the method, where this is not what the scheme says
};

// Of a linear that the scheme quantizes like this. What a method may leave counts as what it leaves.
StoredForm stored_form(const std::vector<StageSpec>& pipeline, const QuantSpec& spec, int64_t out_features, int64_t in_features);

}  // namespace qb
