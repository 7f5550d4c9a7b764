#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace qb {

// What a GGUF file's tokenizer.ggml.pre stands for.
struct GgufPreTokenizer {
  nlohmann::json description;   // as in a tokenizer.json
  bool ignore_merges = false;
  bool add_bos = false;         // where the file does not say
};

// nullopt for a name that is not known.
std::optional<GgufPreTokenizer> gguf_pre_tokenizer(const std::string& name);
std::string known_gguf_pre_tokenizers();

}  // namespace qb
