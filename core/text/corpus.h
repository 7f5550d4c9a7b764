#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/base/control.h"

namespace qb {

class ChatTemplate;
class Tokenizer;

// Where text comes from. A path is a text file, a .jsonl file (one object a line), a .json file (an array of objects or
// of strings), or a folder of such files (taken in name order). Of an object, `field` holds the text; where that is a
// conversation (or the object has no such field, but "messages"), its text is what the model's chat template makes of
// it. Relative paths are resolved by the caller. UTF-8, or UTF-16 with its byte-order mark; marks are no part of the
// text. In text files "\r\n" and a lone "\r" are read as "\n", as Python does and so every tool whose perplexity stands
// beside ours.
struct CorpusSpec {
  std::string name;              // shown beside figures; defaults to the file's name
  std::filesystem::path path;
  std::string field = "text";    // of the objects of JSON
  bool operator==(const CorpusSpec&) const = default;
};

struct Corpus {
  std::string name;
  std::vector<std::string> documents;  // text file: one document; JSON: one an object
  std::string hash;                    // of the content, and of the chat template where it made the text
  std::vector<bool> whole_file;        // documents[i] is a text file's whole content; may be empty: none is
  std::vector<bool> templated = {};        // documents[i] is a chat template's text, with its own special tokens; may be empty: none is
  std::vector<std::string> notes = {}; // what a person should know of how it was read
};

// `chat`: the model's template for conversations; without one they are their messages' plain text, with a note.
// Throws InputError naming file and line (bad JSON, missing field, empty corpus), or the byte that is no text. In a
// folder, .jsonl, .json, .txt, .text, .md and .raw files count, in any case of letters.
Corpus load_corpus(const CorpusSpec& spec, const ChatTemplate* chat = nullptr);

// Where the tokenizer's beginning-of-sequence token (BOS) stands: where the tokenizer itself puts it (at the start of the
// whole text, if at all), at the start of every window (which is then one token of BOS and seq_len - 1 of text), nowhere.
enum class Bos { tokenizer, every_window, none };
std::string to_text(Bos bos);                 // "tokenizer", "every_window", "none"
std::optional<Bos> parse_bos(const std::string& text);
// What the evaluations of a family's own makers do. `family` as in ModelInfo.
Bos default_bos(const std::string& family);
// A wish, or the family's default where the tokenizer can do it. Throws InputError for every_window without a BOS.
Bos bos_of(const std::optional<Bos>& wish, const std::string& family, const Tokenizer& tokenizer);

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
  std::optional<Bos> bos = {};          // absent: the family's default
  bool operator==(const SamplingSpec&) const = default;
};
const std::vector<std::string>& sampling_names();

struct TokenSet {
  std::vector<std::vector<int32_t>> samples;  // each seq_len long, except where the sampling allows shorter ones
  std::string hash;                           // of the ids
  Bos bos = Bos::tokenizer;                   // where it stands in them
  int64_t tokens() const;
};

// Throws InputError when the text is too short, saying how many tokens there are and how many are needed. An absent
// `bos` counts as Bos::tokenizer.
TokenSet sample_tokens(const Corpus& corpus, const Tokenizer& tokenizer, const SamplingSpec& spec, const Control& control = {});

// The text tokenized once (documents joined by `joiner`), as the perplexity protocol wants it. Without `special` the
// tokenizer adds no tokens of its own.
std::vector<int32_t> tokenize_corpus(const Corpus& corpus, const Tokenizer& tokenizer, const std::string& joiner = "\n\n", bool special = true);
// The evaluation text, to be cut into windows of seq_len: for Bos::every_window each seq_len-th token is BOS.
std::vector<int32_t> evaluation_tokens(const Corpus& corpus, const Tokenizer& tokenizer, Bos bos, int64_t seq_len);

}  // namespace qb
