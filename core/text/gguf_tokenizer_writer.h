#pragma once
#include <cstdint>
#include <filesystem>

#include "core/format/gguf_write.h"

namespace qb {

// Adds the tokenizer of a model folder (tokenizer.json, else tokenizer.model; tokenizer_config.json, generation_config.json and
// chat_template.jinja beside it) as llama.cpp wants it: byte-level BPE as "gpt2", SentencePiece's BPE as "llama". rows: of the
// embedding; tokens are filled up to them. path: the folder, or a GGUF file, whose tokenizer.* keys are copied. A folder without
// any tokenizer makes the model "none", which llama.cpp loads for ids alone.
// The result is read back and cuts a sample text into the same ids. Throws InputError naming the file where it does not, where a
// tokenizer is of another kind, or has more tokens than rows.
//
// Falcon's text beyond ASCII, which llama.cpp cuts otherwise, is left out of that sample.
// llama.cpp normalizes nothing: text that is not in the normal form that a tokenizer makes (NFC) is cut otherwise there.
// What llama.cpp trips over: tokenizer.ggml.pre decides the regular expression, so a wrong or missing one changes tokens without a
// word; scores and token_type must be as long as tokens; a BOS is added by default for "llama", so that add_bos_token is always
// written; special tokens must be of type 3, or they are cut like text.
void describe_tokenizer(const std::filesystem::path& path, int64_t rows, GgufMetadata& out);

}  // namespace qb
