#pragma once
#include <filesystem>

namespace qb {

// What to do with a quantized model that was given as one to quantize.
inline constexpr const char* kQuantizedAdvice =
    "\"qbench import\" measures it beside your runs, \"model: {path: …, dequantize: true}\" in a recipe quantizes the numbers that its codes stand for";

// Where a model's parts lie.
struct ModelFiles {
  bool gguf = false;
  std::filesystem::path folder;   // empty for GGUF
  std::filesystem::path config;   // config.json
  std::filesystem::path weights;  // what open_safetensors or GgufFile::open takes
};

// path: a Hugging Face folder, its config.json or a .safetensors inside it, or a .gguf file.
// Throws InputError saying what was found and what a model looks like.
ModelFiles locate_model(const std::filesystem::path& path);

}  // namespace qb
