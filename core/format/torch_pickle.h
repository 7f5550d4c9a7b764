#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/format/tensor_info.h"

namespace qb {

// A tensor as torch pickles it: a strided view of a storage, which lies under its key in the archive.
struct PickledTensor {
  std::string name, storage;
  uint64_t storage_bytes = 0;
  DType dtype = DType::f32;
  uint64_t first = 0;              // element of the storage
  std::vector<int64_t> shape, stride;
  uint64_t span = 0;               // elements of the storage from the first to the last one used
};

// The tensors of a dictionary that torch.save pickled (protocols 2 to 5), in its order. Nothing is executed: the pickle's opcodes
// build texts, numbers, lists, tuples and dictionaries, and the only names that mean something are those of tensors, parameters,
// storages and types. Throws InputError naming `file`, and the name where the pickle asks for any other, where it is cut or makes
// anything but tensors by name, or where a tensor does not lie in its storage.
std::vector<PickledTensor> parse_torch_pickle(std::span<const std::byte> pickle, const std::string& file);

}  // namespace qb
