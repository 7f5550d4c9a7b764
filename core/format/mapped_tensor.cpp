#include "core/format/mapped_tensor.h"

#include <cstring>
#include <utility>

#include "core/format/safetensors.h"

namespace qb {

at::Tensor view_mapped(std::shared_ptr<const MappedFile> file, const TensorInfo& info) {
  const at::ScalarType type = scalar_type_of(info.dtype);
  auto bytes = file->bytes(info.offset, info.bytes, "tensor " + info.name);
  if (bytes.empty()) return at::empty(info.shape, type);
  void* data = const_cast<std::byte*>(bytes.data());
  const size_t alignment = at::elementSize(type);
  if (reinterpret_cast<uintptr_t>(data) % alignment == 0)
    return at::from_blob(data, info.shape, [keep = std::move(file)](void*) {}, at::TensorOptions().dtype(type));
  // Reading through a misaligned pointer is undefined: copy the bytes as bytes.
  at::Tensor copy = at::empty(info.shape, type);
  std::memcpy(copy.data_ptr(), data, bytes.size());
  return copy;
}

}  // namespace qb
