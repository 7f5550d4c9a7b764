#pragma once
#include <functional>
#include <map>

#include "core/format/tensor_source.h"

namespace qb {

// A single .safetensors file, or a folder with model.safetensors or model.safetensors.index.json and its shards.
// Opening reads headers only. Throws InputError on any inconsistency (see format tests for the list). Tensors stand in
// their headers' order.
TensorSourcePtr open_safetensors(const std::filesystem::path& file_or_folder);
// "__metadata__" of one file.
std::map<std::string, std::string> read_safetensors_metadata(const std::filesystem::path& file);

// Writes tensors (any device, contiguous or not) atomically, one at a time through memory. The header lists them in the
// given order; their data lie by falling element size, so that each is aligned in the file. metadata always gets
// {"format":"pt"}. Throws ResourceError naming the path where the disk refuses, InternalError for a name given twice or
// one that is not UTF-8, InputError for a type the format has no name for.
void write_safetensors(const std::filesystem::path& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

// A tensor that is made when its turn to be written comes: of this type and shape, or an InternalError.
struct PlannedTensor {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;
  std::function<at::Tensor()> make;
  uint64_t bytes() const;
};
// The same, one tensor at a time through memory. written: called with the bytes of each tensor after it.
void write_safetensors(const std::filesystem::path& path, const std::vector<PlannedTensor>& tensors, const std::map<std::string, std::string>& metadata,
                       const std::function<void(uint64_t)>& written);
// model.safetensors, or where the tensors take more than `limit` bytes model-0000i-of-0000n.safetensors in the given order and
// model.safetensors.index.json, into an existing folder. Returns the files' names.
std::vector<std::string> write_sharded_safetensors(const std::filesystem::path& folder, const std::vector<PlannedTensor>& tensors, uint64_t limit,
                                                   const std::function<void(uint64_t)>& written);

DType dtype_of(at::ScalarType type);
at::ScalarType scalar_type_of(DType dtype);  // throws InputError for ggml block formats

}  // namespace qb
