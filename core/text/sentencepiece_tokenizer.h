#pragma once
#include "core/text/tokenizer.h"

namespace qb {

// A SentencePiece .model, run by its own library. Its control symbols, and the added tokens of a tokenizer_config.json
// beside it, are found in the text first, as Hugging Face does. Then each stretch between them is encoded:
//  - legacy (the default, "legacy" in tokenizer_config.json): with the model's own leading space every time;
//  - not legacy: only the text's beginning gets the leading space.
// add_bos_token (default: true) and add_eos_token (default: false) come from tokenizer_config.json too.
std::shared_ptr<const Tokenizer> load_sentencepiece(const std::filesystem::path& path);

}  // namespace qb
