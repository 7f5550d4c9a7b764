#pragma once
#include <filesystem>
#include <optional>
#include <string>

#include "core/measure/report.h"

namespace qb {

// What float models hand to their heads (core/measure/reference_states.h), which divergences are made of: workspace/cache/references.
std::filesystem::path reference_states_path(const std::filesystem::path& workspace);
// Figures that runs of all hosts share: a file each, workspace/cache/evaluations/HASH.json, with the key that it stands for.
// nullopt where there is none or it is damaged: it is measured again.
std::optional<EvaluationResult> kept_evaluation(const std::filesystem::path& workspace, const std::string& key);
// The lease of who measures such a figure now, so that others wait for it rather than measure it too. Makes its folder; ResourceError.
std::filesystem::path evaluation_lease(const std::filesystem::path& workspace, const std::string& key);
void keep_evaluation(const std::filesystem::path& workspace, const std::string& key, const EvaluationResult& result);  // ResourceError

}  // namespace qb
