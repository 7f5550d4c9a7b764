#pragma once
#include <filesystem>
#include <memory>

#include "core/format/tensor_source.h"
#include "core/method/method.h"

namespace qb {

// Writes a finished block: packed codes, grid and layout of every rounded linear; float weights, biases, norms and so on
// that stages replaced, in full. `loaded` is the block before its stages. Atomic and fsynced.
void write_block(const std::filesystem::path& path, const BlockWork& work, const Block& loaded);

// Tensors of written blocks under the model's names, dequantized to float32 one at a time on reading.
// Throws InputError naming file and tensor where a file is damaged.
// tuned: a file of scales ("NAME.scale") and other tensors that replace the blocks' own; empty: none.
TensorSourcePtr open_blocks(const std::vector<std::filesystem::path>& paths, const std::filesystem::path& tuned = {});

// A rounded weight of a written block, in codes; nothing when it stayed float. scale_type is not stored: the recipe has it.
std::optional<QuantizedWeight> read_rounded(const TensorSource& stored, const std::string& name);

}  // namespace qb
