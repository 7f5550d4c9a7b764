#pragma once
#include <functional>

#include "core/base/control.h"
#include "core/measure/report.h"
#include "core/measure/window_pass.h"

namespace qb {

using PerplexitySpec = WindowSpec;

// Non-overlapping windows of seq_len, remainder dropped. Block by block: resident memory is one block plus the hidden
// states of a chunk of windows. `on_estimate` gets the running figure after every chunk.
// Throws InputError when the text has fewer than seq_len tokens or seq_len passes the model's context.
EvaluationResult perplexity(std::shared_ptr<const Model> model, TensorSourcePtr source, const std::vector<int32_t>& ids,
                            const PerplexitySpec& spec, const Control& control = {},
                            const std::function<void(const EvaluationResult&)>& on_estimate = {});

}  // namespace qb
