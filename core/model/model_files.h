#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace qb {

// What to do with a quantized model that was given as one to quantize.
inline constexpr const char* kQuantizedAdvice =
    "\"qbench import\" measures it beside your runs, \"model: {path: …, dequantize: true}\" in a recipe quantizes the numbers that its codes stand for";

struct ModelInfo;

// A fact that the user should know: where the files and their configuration disagree, what a checkpoint asks for and is not done.
inline constexpr const char* kNote = "Note";
std::vector<std::string> notes_of(const ModelInfo& info);

// Where a model's parts lie.
struct ModelFiles {
  bool gguf = false;
  std::filesystem::path folder;   // empty for GGUF
  std::filesystem::path config;   // config.json
  std::filesystem::path weights;  // what open_weights or GgufFile::open takes
};

// path: a Hugging Face folder, or its config.json, weights or index of shards in its place; or a GGUF file, whatever its name ends in.
// Throws InputError saying what was found and what a model looks like.
ModelFiles locate_model(const std::filesystem::path& path);

// What a model is called: by the Hub's cache "organisation/name", else as its folder or file is.
std::string name_of_model(const std::filesystem::path& path, const ModelFiles& files);

}  // namespace qb
