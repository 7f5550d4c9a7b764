#pragma once
#include <ATen/ATen.h>

#include <filesystem>
#include <vector>

#include "core/text/corpus.h"

namespace qb {

// The calibration samples' hidden states (all that one block hands to the next), in batches of equal length. Above `resident_bytes` they live in an unlinked file
// beside the run, which the kernel pages in and out.
class HiddenStates {
 public:
  // Batches of at most `batch_tokens` tokens (at least one sample each). drawn_tokens: of the larger batches that stages draw samples from.
  HiddenStates(const TokenSet& tokens, int64_t width, at::ScalarType dtype, int64_t resident_bytes, const std::filesystem::path& folder,
               int64_t batch_tokens, int64_t drawn_tokens = 0);

  size_t batches() const { return ids_.size(); }
  const at::Tensor& ids(size_t batch) const { return ids_[batch]; }        // [samples, seq] int64
  at::Tensor& operator[](size_t batch) { return hidden_[batch]; }          // [samples, seq, width], written in place
  const at::Tensor& operator[](size_t batch) const { return hidden_[batch]; }
  int64_t tokens() const { return tokens_; }
  // The same states in fewer, larger batches: views of batches that follow each other and are of one length.
  const std::vector<at::Tensor>& drawn() const { return drawn_; }

 private:
  std::vector<at::Tensor> ids_, hidden_, drawn_;
  int64_t tokens_ = 0;
};

}  // namespace qb
