#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "core/model/config_fields.h"

namespace qb {

// What a checkpoint says about how its weights are stored, where they can be read as numbers.
struct StoredQuantization {
  std::vector<int64_t> block;      // rows and columns that share a scale of F8 weights, where it says so; else empty
  std::vector<std::string> notes;  // what it asks for at run time and a model of numbers does not do
};

// Reads quantization_config (or MLX's quantization, or modelopt's hf_quant_config.json in the folder). Weights as numbers, in F8 with
// scales (fp8, fbgemm_fp8, modelopt, compressed-tensors' float-quantized) or as gpt-oss' MXFP4 are fine; codes are refused, and so is
// anything that is not understood to the end: InputError naming the key.
StoredQuantization read_stored_quantization(const ConfigFields& fields, const std::filesystem::path& folder);

}  // namespace qb
