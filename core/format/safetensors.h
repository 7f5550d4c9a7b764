#pragma once
#include <map>

#include "core/format/tensor_source.h"

namespace qb {

// A single .safetensors file, or a folder with model.safetensors or model.safetensors.index.json and its shards.
// Opening reads headers only. Throws InputError on any inconsistency (see format tests for the list). Tensors stand in
// their headers' order.
TensorSourcePtr open_safetensors(const std::filesystem::path& file_or_folder);

// Writes tensors (any device, contiguous or not) atomically, one at a time through memory. The header lists them in the
// given order; their data lie by falling element size, so that each is aligned in the file. metadata always gets
// {"format":"pt"}. Throws ResourceError naming the path where the disk refuses, InternalError for a name given twice or
// one that is not UTF-8, InputError for a type the format has no name for.
void write_safetensors(const std::filesystem::path& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

DType dtype_of(at::ScalarType type);
at::ScalarType scalar_type_of(DType dtype);  // throws InputError for ggml block formats

}  // namespace qb
