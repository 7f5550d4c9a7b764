#pragma once
#include <ATen/ATen.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/format/tensor_info.h"

namespace qb {

// Named tensors that can be read one at a time; implementations map files and never hold more than what is read.
// Thread-safe for reading.
class TensorSource {
 public:
  virtual ~TensorSource() = default;
  virtual const std::vector<TensorInfo>& tensors() const = 0;
  virtual const std::vector<std::filesystem::path>& files() const = 0;
  // nullptr when absent.
  virtual const TensorInfo* find(const std::string& name) const = 0;
  // The tensor on the CPU. Plain types: a zero-copy view of the mapped file in its stored dtype (do not write to it).
  // ggml block formats: dequantized to float32. Throws InputError naming file and tensor.
  virtual at::Tensor read(const std::string& name) const = 0;
  bool contains(const std::string& name) const { return find(name) != nullptr; }
};

using TensorSourcePtr = std::shared_ptr<const TensorSource>;

}  // namespace qb
