#pragma once
#include <mutex>

#include "core/text/added_tokens.h"
#include "core/text/decoder_chain.h"
#include "core/text/normalizer.h"
#include "core/text/post_processor.h"
#include "core/text/pre_tokenizer.h"
#include "core/text/token_model.h"
#include "core/text/tokenizer.h"

namespace qb {

// Normalization → pre-tokenization → model → post-processing, as Hugging Face tokenizers runs them.
class PipelineTokenizer final : public Tokenizer {
 public:
  struct Parts {
    std::vector<std::unique_ptr<Normalizer>> normalizers;
    PreTokenization pre_tokenization;
    std::unique_ptr<TokenModel> model;
    AddedTokens added;
    SpecialFrame frame;
    std::vector<std::unique_ptr<DecoderStep>> decoder;
    std::optional<int32_t> bos, eos;
    std::vector<std::string> notes;
  };
  explicit PipelineTokenizer(Parts parts);

  std::vector<int32_t> encode(std::string_view text, bool add_special) const override;
  std::string decode(std::span<const int32_t> ids, bool skip_special) const override;
  std::string token(int32_t id) const override;
  std::optional<int32_t> id_of(std::string_view token) const override;
  int64_t vocabulary_size() const override { return size_; }
  std::optional<int32_t> bos() const override { return parts_.bos; }
  std::optional<int32_t> eos() const override { return parts_.eos; }
  std::string description() const override;
  bool adds_bos() const override { return parts_.bos && !parts_.frame.before.empty() && parts_.frame.before.front() == *parts_.bos; }
  std::vector<std::string> notes() const override { return parts_.notes; }

 private:
  std::unique_ptr<TokenModel::Scratch> borrow() const;
  void give_back(std::unique_ptr<TokenModel::Scratch> scratch) const;

  Parts parts_;
  int64_t size_ = 0;
  mutable std::mutex mutex_;  // of the idle scratches: their word caches live on from one encoding to the next
  mutable std::vector<std::unique_ptr<TokenModel::Scratch>> idle_;
};

}  // namespace qb
