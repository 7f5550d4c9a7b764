#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/base/control.h"

namespace qb {

class Tokenizer;

// Where text comes from. A path is a text file, a .jsonl file (one object a line, `field` holds the text), or a folder
// of such files (taken in name order). Relative paths are resolved by the caller.
struct CorpusSpec {
  std::string name;              // shown beside figures; defaults to the file's name
  std::filesystem::path path;
  std::string field = "text";    // JSONL only
  bool operator==(const CorpusSpec&) const = default;
};

struct Corpus {
  std::string name;
  std::vector<std::string> documents;  // text file: one document; JSONL: one per line; LLMC's line corpora: see sampling
  std::string hash;                    // of the content
};

// Throws InputError naming file and line (bad JSON, missing field, empty corpus).
Corpus load_corpus(const CorpusSpec& spec);

// How calibration tokens are drawn. `sampling` is one of sampling_names().
struct SamplingSpec {
  std::string sampling = "sequential";  // sequential | random_windows | documents | wikitext2_gptq | ptb_gptq | c4_gptq |
                                        // pileval_awq | txt_general_preproc | random_truncate_txt
  int64_t samples = 128;
  int64_t seq_len = 512;
  uint64_t seed = 42;
  bool operator==(const SamplingSpec&) const = default;
};
const std::vector<std::string>& sampling_names();

struct TokenSet {
  std::vector<std::vector<int32_t>> samples;  // each seq_len long, except where the sampling allows shorter ones
  std::string hash;                           // of the ids
  int64_t tokens() const;
};

// Throws InputError when the text is too short, saying how many tokens there are and how many are needed.
TokenSet sample_tokens(const Corpus& corpus, const Tokenizer& tokenizer, const SamplingSpec& spec, const Control& control = {});

// The evaluation text tokenized once (documents joined by `joiner`), as the perplexity protocol wants it.
std::vector<int32_t> tokenize_corpus(const Corpus& corpus, const Tokenizer& tokenizer, const std::string& joiner = "\n\n");

}  // namespace qb
