#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/base/control.h"

namespace qb {

class Tokenizer;

// Where text comes from. A path is a text file, a .jsonl file (one object a line, `field` holds the text), or a folder
// of such files (taken in name order). Relative paths are resolved by the caller. In text files "\r\n" and a lone "\r"
// are read as "\n", as Python does and so every tool whose perplexity stands beside ours.
struct CorpusSpec {
  std::string name;              // shown beside figures; defaults to the file's name
  std::filesystem::path path;
  std::string field = "text";    // JSONL only
  bool operator==(const CorpusSpec&) const = default;
};

struct Corpus {
  std::string name;
  std::vector<std::string> documents;  // text file: one document; JSONL: one per line
  std::string hash;                    // of the content
  std::vector<bool> whole_file;        // documents[i] is a text file's whole content; may be empty: none is
};

// Throws InputError naming file and line (bad JSON, missing field, empty corpus). In a folder, .jsonl, .txt, .text, .md
// and .raw files count.
Corpus load_corpus(const CorpusSpec& spec);

// What samplings that go by documents draw from: a text file's are its non-blank lines, as LLMC reads them, with the
// spaces around each removed; a JSONL file's are its objects' texts as they are.
std::vector<std::string> sampling_documents(const Corpus& corpus);

// How calibration tokens are drawn. `sampling` is one of sampling_names(). All but `sequential` follow the seed, also
// where LLMC fixes 42.
//   sequential           the text's first samples × seq_len tokens, cut into samples
//   random_windows       windows at random places of the text
//   documents            documents in random order, each cut to seq_len (shorter ones stay short)
//   wikitext2_gptq       documents joined by a blank line, windows at random places
//   ptb_gptq             documents joined by a space, windows at random places
//   c4_gptq              a random document of at least seq_len tokens, a window at a random place of it
//   pileval_awq          documents of at most seq_len tokens in random order, the first `samples` of them joined and cut
//                        into seq_len pieces: fewer than `samples`
//   txt_general_preproc  documents of at least seq_len tokens in random order, each cut to its first seq_len
//   random_truncate_txt  documents in random order joined by a blank line, windows at random places
// Windows may repeat and overlap, as in GPTQ's loaders.
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
