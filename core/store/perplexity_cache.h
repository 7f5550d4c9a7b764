#pragma once
#include <filesystem>
#include <optional>
#include <string>

#include "core/measure/report.h"

namespace qb {

// Figures that runs of all hosts share: a file each, workspace/cache/perplexity/HASH.json, with the key that it stands for.
// nullopt where there is none or it is damaged: it is measured again.
std::optional<PerplexityResult> kept_perplexity(const std::filesystem::path& workspace, const std::string& key);
void keep_perplexity(const std::filesystem::path& workspace, const std::string& key, const PerplexityResult& result);  // ResourceError

}  // namespace qb
