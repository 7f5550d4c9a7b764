#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace qb {

// weight_map of a model.safetensors.index.json: (tensor, shard) in the file's order. Throws InputError naming `file` for
// broken JSON, a missing map, a tensor named twice, or a shard that is not the plain name of a file beside the index.
std::vector<std::pair<std::string, std::string>> parse_safetensors_index(std::string_view text, const std::string& file);

}  // namespace qb
