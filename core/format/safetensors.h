#pragma once
#include <map>

#include "core/format/tensor_source.h"

namespace qb {

// A single .safetensors file, or a folder with model.safetensors or model.safetensors.index.json and its shards.
// Opening reads headers only. Throws InputError on any inconsistency (see format tests for the list).
TensorSourcePtr open_safetensors(const std::filesystem::path& file_or_folder);

// Writes tensors (CPU, contiguous or not) in the given order, atomically. metadata always gets {"format":"pt"}.
void write_safetensors(const std::filesystem::path& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

DType dtype_of(at::ScalarType type);
at::ScalarType scalar_type_of(DType dtype);  // throws InputError for ggml block formats

}  // namespace qb
