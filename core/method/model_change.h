#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/base/control.h"
#include "core/method/method_info.h"
#include "core/model/model.h"

namespace qb {

// Stages that change the model before its blocks are walked: rotations, dropped blocks. Everything after them (and every
// evaluation of the run) sees the changed model. A change is made again from its plan, so that a resumed run has the same.
struct ModelChange {
  const char* method;
  // Decides what to do, from calibration text where it needs any; one line of text, not empty. nullptr: there is nothing to decide.
  using Plan = std::string (*)(const StageSpec& stage, const std::shared_ptr<const Model>& model, const std::vector<std::vector<int32_t>>& calibration,
                               at::Device device, const Control& control);
  using Apply = std::shared_ptr<const Model> (*)(const StageSpec& stage, const std::shared_ptr<const Model>& model, const std::string& plan, uint64_t seed);
  Plan plan = nullptr;
  Apply apply = nullptr;
};

// The method of a stage that works before or after the blocks are walked: on a block it does nothing.
std::unique_ptr<Method> make_outside_blocks();

// nullptr when the method works on blocks.
const ModelChange* model_change(const std::string& method);

}  // namespace qb
