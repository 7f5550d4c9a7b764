#pragma once
#include <filesystem>
#include <memory>

#include "core/format/tensor_source.h"
#include "core/method/method.h"

namespace qb {

// Writes a finished block: codes, grid and layout of every rounded linear; float weights that stages changed in full.
// Atomic and fsynced.
void write_block(const std::filesystem::path& path, const BlockWork& work);

// Tensors of written blocks under the model's names, dequantized to float32 one at a time on reading.
TensorSourcePtr open_blocks(const std::vector<std::filesystem::path>& paths);

}  // namespace qb
