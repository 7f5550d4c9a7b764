#pragma once
#include <ATen/ATen.h>
#include <fmt/format.h>

#include "core/base/error.h"
#include "core/model/model.h"

namespace qb {

// Throws InputError naming model and tensor where these values of it hold NaN or infinity.
inline void require_finite(const at::Tensor& values, const Model& model, const std::string& tensor) {
  const auto [low, high] = at::aminmax(values);  // both are NaN where anything is
  if (!low.isfinite().item<bool>() || !high.isfinite().item<bool>()) throw InputError(fmt::format("{}: tensor \"{}\" holds NaN or infinity", model.path.string(), tensor));
}

}  // namespace qb
