#pragma once
#include <map>

#include "core/format/safetensors.h"

namespace qb {

// A .safetensors file in which a flipped bit is noticed: "checksums" of its metadata holds the hash of each tensor (name, type, shape,
// data) and of the other metadata. Atomic and fsynced. Errors as of write_safetensors.
void write_checked_safetensors(const std::filesystem::path& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                               const std::map<std::string, std::string>& metadata = {});

struct CheckedSafetensors {
  TensorSourcePtr tensors;
  std::map<std::string, std::string> metadata;
  bool checked = false;  // the file has checksums
};
// Metadata are compared at once, a tensor each time it is read. A file without checksums (an older version's) is read as it is.
// Throws InputError naming the file, and the tensor where it is one.
CheckedSafetensors open_checked_safetensors(const std::filesystem::path& file);

// What is wrong with a file: reads all of it. Empty: nothing.
std::string damage_of(const std::filesystem::path& checked_file);

}  // namespace qb
