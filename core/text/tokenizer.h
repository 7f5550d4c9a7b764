#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qb {

class GgufFile;

// Text to token ids and back, with the ids of Hugging Face tokenizers. Immutable after loading, thread-safe.
// Where we differ on purpose: a tokenizer.json's truncation and padding are left to the caller; added tokens whose ids
// are not those that tokenizers would give them are refused; a GGUF file's own pre-tokenizer is used, which
// transformers' conversion leaves out. In regular expressions, (?i) knows no foldings of several characters (ß is not
// ss). Not read: WordPiece and WordLevel models, BertNormalizer, the UnicodeScripts pre-tokenizer, CTC decoding.
class Tokenizer {
 public:
  // A model folder with all its files (FolderTokenizer), another file in it (config.json, a shard), a tokenizer.json alone,
  // a .model file, or a GGUF file. Throws InputError naming the file and the field.
  static std::shared_ptr<const Tokenizer> load(const std::filesystem::path& path);
  static std::shared_ptr<const Tokenizer> from_json_text(std::string_view json, const std::string& origin);
  static std::shared_ptr<const Tokenizer> from_gguf(const GgufFile& file);
  virtual ~Tokenizer() = default;

  // Invalid UTF-8 becomes U+FFFD as Hugging Face's lossy decoding does. add_special: run the post-processor (BOS …).
  virtual std::vector<int32_t> encode(std::string_view text, bool add_special = true) const = 0;
  virtual std::string decode(std::span<const int32_t> ids, bool skip_special = true) const = 0;
  // The vocabulary's own spelling of one id ("Ġthe", "▁the", "<0x0A>"); empty for an id outside the vocabulary.
  virtual std::string token(int32_t id) const = 0;
  virtual std::optional<int32_t> id_of(std::string_view token) const = 0;
  virtual int64_t vocabulary_size() const = 0;  // highest id + 1, added tokens included
  virtual std::optional<int32_t> bos() const = 0;
  virtual std::optional<int32_t> eos() const = 0;
  virtual std::string description() const = 0;  // "byte-level BPE, 49152 tokens"
  virtual bool adds_bos() const { return false; }  // encode() puts BOS before a text
  // What a person should know of how the files were read; usually nothing.
  virtual std::vector<std::string> notes() const { return {}; }
};

}  // namespace qb
