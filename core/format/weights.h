#pragma once
#include "core/format/tensor_source.h"

namespace qb {

// torch.save's file of a state_dict since torch 1.6 (a zip archive), memory-mapped; an index (.json) of such files beside it; or a folder
// with pytorch_model.bin or pytorch_model.bin.index.json. Nothing in it is executed. Throws InputError naming the file.
TensorSourcePtr open_torch_weights(const std::filesystem::path& place);

// A Hugging Face folder's weights: safetensors, and where it has none torch's files. A single file or an index of shards is taken too.
TensorSourcePtr open_weights(const std::filesystem::path& place);

}  // namespace qb
