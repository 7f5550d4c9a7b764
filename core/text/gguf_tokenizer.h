#pragma once
#include "core/text/pipeline_tokenizer.h"

namespace qb {

// The parts of the tokenizer in a GGUF file's metadata: byte-level BPE ("gpt2", its pre-tokenizer chosen by
// tokenizer.ggml.pre as llama.cpp does) or SentencePiece BPE with scores ("llama").
// Throws InputError naming the file and the key.
PipelineTokenizer::Parts read_gguf_tokenizer(const GgufFile& file);

}  // namespace qb
