#pragma once
#include "core/method/method.h"
#include "core/method/model_change.h"

namespace qb {

// ShortGPT (Men et al. 2024, arXiv 2403.03853): drops the blocks that turn the hidden states least.
MethodInfo shortgpt_info();
std::unique_ptr<Method> make_shortgpt(const StageSpec& stage);
ModelChange shortgpt_change();

// Block influence 1 − mean cos(x, f(x)) of every block on the given samples.
std::vector<double> block_influence(const std::shared_ptr<const Model>& model, const std::vector<std::vector<int32_t>>& samples, at::Device device, const Control& control);

}  // namespace qb
