#pragma once
#include <array>
#include <optional>

#include "core/text/byte_trie.h"
#include "core/text/token_model.h"

namespace qb {

// The segmentation of highest total score (Viterbi), as in SentencePiece's Unigram models. Unknown characters cost the
// lowest score less 10 and are fused.
class Unigram final : public TokenModel {
 public:
  // scores: by id, as many as tokens. Throws InputError naming `origin`.
  Unigram(Vocabulary vocabulary, std::vector<double> scores, std::optional<int32_t> unknown, bool byte_fallback, std::string origin);

  std::unique_ptr<Scratch> make_scratch() const override;
  void tokenize(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const override;
  const Vocabulary& vocabulary() const override { return vocabulary_; }
  std::string kind() const override { return "Unigram"; }

 private:
  struct Work;
  void add_span(std::string_view span, std::vector<int32_t>& ids) const;
  Vocabulary vocabulary_;
  std::vector<double> scores_;
  std::optional<int32_t> unknown_;
  bool byte_fallback_;
  std::string origin_;
  double unknown_score_ = 0;
  ByteTrie trie_;
  std::array<int32_t, 256> fallback_ids_;
};

}  // namespace qb
