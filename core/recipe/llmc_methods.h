#pragma once
#include <string>
#include <vector>

#include "core/method/method_info.h"
#include "core/recipe/yaml_map.h"

namespace qb {

// LLMC's `quant.method` with its `special` keys as a pipeline. The method must be known (known_from_llmc).
// special may be nullptr. Keys that have no counterpart stay unread; notes tell what was translated freely.
std::vector<StageSpec> stages_from_llmc(const std::string& method, YamlMap* special, std::vector<std::string>& notes);

bool known_from_llmc(const std::string& method);

struct LlmcMethod {
  std::string method;   // quant.method
  std::vector<std::pair<std::string, std::string>> special;  // key, value
};
// The other way. Throws RecipeError for a pipeline that LLMC cannot run in one file.
LlmcMethod llmc_method(const std::vector<StageSpec>& pipeline, bool symmetric, std::vector<std::string>& notes);

}  // namespace qb
