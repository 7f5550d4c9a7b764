#pragma once
#include <array>
#include <optional>
#include <string>
#include <utility>

#include "core/text/merge_table.h"
#include "core/text/token_model.h"

namespace qb {

struct BpeOptions {
  std::optional<std::string> unknown;         // token for what the vocabulary cannot spell; without it that is dropped
  std::string continuing_prefix, end_suffix;  // added to every character but the first, and to the last
  bool fuse_unknown = false;
  bool byte_fallback = false;   // spell unknown characters as <0xHH>
  bool ignore_merges = false;   // a piece that is a token as a whole stays one
  bool byte_level = false;      // pieces are raw bytes, tokens are spelled in GPT-2's alphabet
};

// Byte pair encoding: repeatedly merges the neighbouring pair of lowest rank, leftmost first.
class Bpe final : public TokenModel {
 public:
  Bpe(Vocabulary vocabulary, MergeTable merges, BpeOptions options, std::string origin);
  ~Bpe() override;

  std::unique_ptr<Scratch> make_scratch() const override;
  void tokenize(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const override;
  const Vocabulary& vocabulary() const override { return vocabulary_; }
  std::string kind() const override;

 private:
  struct Work;
  void tokenize_word(std::string_view word, Work& work, std::vector<int32_t>& ids) const;
  void tokenize_text(std::string_view text, Work& work, std::vector<int32_t>& ids) const;
  void spell(std::string_view word, std::vector<int32_t>& symbols) const;
  void spell_unknown(std::string_view symbol, std::vector<int32_t>& symbols, int32_t& pending) const;
  void merge_short(std::vector<int32_t>& symbols, Work& work) const;
  void merge_long(std::vector<int32_t>& symbols, Work& work) const;
  void find_safe_cut();

  Vocabulary vocabulary_;
  MergeTable merges_;
  BpeOptions options_;
  std::string origin_;
  std::array<int32_t, 256> byte_ids_;       // id of each byte's spelling, -1 where there is none
  std::array<int32_t, 256> fallback_ids_;   // id of <0xHH>
  std::unordered_map<uint32_t, int32_t> character_ids_;
  std::array<int32_t, 128> ascii_ids_;
  std::unordered_map<std::string, int32_t> whole_words_;  // raw bytes → id, for ignore_merges at byte level
  bool cut_before_space_ = false;
};

}  // namespace qb
