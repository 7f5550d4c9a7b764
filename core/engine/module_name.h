#pragma once
#include <string>

#include "core/model/model_info.h"

namespace qb {

// "model.layers.0.self_attn.q_proj" of a linear: what patterns match and what users read.
inline std::string module_of(const LinearInfo& linear) {
  const std::string suffix = ".weight";
  const std::string& name = linear.tensor;
  return name.size() > suffix.size() && name.ends_with(suffix) ? name.substr(0, name.size() - suffix.size()) : name;
}

}  // namespace qb
