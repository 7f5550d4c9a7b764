#include "core/format/mapped_tensor.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "core/format/safetensors.h"

namespace qb {
namespace {

// Takes whole pages off our resident memory: nobody looks at them now, and the system's cache has them for the next reader.
void release_pages(std::span<const std::byte> bytes) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(bytes.data()), end = begin + bytes.size();
  const uintptr_t first = (begin + page - 1) / page * page, last = end / page * page;
  if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

}  // namespace

at::Tensor view_mapped(std::shared_ptr<const MappedFile> file, const TensorInfo& info) {
  const at::ScalarType type = scalar_type_of(info.dtype);
  auto bytes = file->bytes(info.offset, info.bytes, "tensor " + info.name);
  if (bytes.empty()) return at::empty(info.shape, type);
  void* data = const_cast<std::byte*>(bytes.data());
  const size_t alignment = at::elementSize(type);
  if (reinterpret_cast<uintptr_t>(data) % alignment == 0)
    return at::from_blob(data, info.shape, [keep = std::move(file), bytes](void*) { release_pages(bytes); }, at::TensorOptions().dtype(type));
  // Reading through a misaligned pointer is undefined: copy the bytes as bytes.
  at::Tensor copy = at::empty(info.shape, type);
  std::memcpy(copy.data_ptr(), data, bytes.size());
  release_pages(bytes);
  return copy;
}

}  // namespace qb
