#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace qb {

// The tokenizer of a model folder as one tokenizer.json, put together as transformers' AutoTokenizer does:
// - tokens of added_tokens_decoder, additional_special_tokens and the named special tokens of tokenizer_config.json, or of
//   special_tokens_map.json and added_tokens.json where that has no added_tokens_decoder, follow the file's own;
// - without a tokenizer.json, vocab.json and merges.txt, or spiece.model and tokenizer.model, become what the class that
//   tokenizer_config.json (else config.json) names makes of them.
// Where transformers would give a token another id than the configuration says, that is an InputError.
struct FolderTokenizer {
  nlohmann::json document;
  std::string origin;     // the file that errors name
  size_t own_tokens = 0;  // added_tokens of the file itself; those after them are of the configurations
  std::optional<std::string> bos, eos;  // that the class of a slow tokenizer has where nothing names them

  // nullopt: a folder without any, or with a SentencePiece model of a class that is not known here.
  static std::optional<FolderTokenizer> read(const std::filesystem::path& folder);
};

// The .model file of a folder (spiece.model, tokenizer.model); empty: it has none.
std::filesystem::path sentencepiece_file(const std::filesystem::path& folder);

}  // namespace qb
