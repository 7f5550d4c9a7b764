#pragma once
#include <ATen/ATen.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <vector>

#include "core/base/control.h"
#include "core/format/checked_safetensors.h"
#include "core/model/decoder.h"
#include "core/text/corpus.h"

namespace qb {

// How much the model's predictions depend on what one linear makes: squared gradients of the divergence from what the float model predicts.
struct LinearGuidance {
  // By token of the text and group of output rows (the first out/groups rows, and so on), [groups, tokens] float32 with a mean of 1 over the
  // tokens that came to the linear. To an expert: all others have 1.
  at::Tensor tokens;
  at::Tensor outputs;  // by output row, mean over tokens [out] float32
};

struct GuidanceOptions {
  int64_t groups = 1;
  uint64_t seed = 42;             // of the drawn gradients
  int64_t resident_bytes = 0;     // of hidden states and gradients, each; above they are in files
  std::filesystem::path folder;   // of this model, text, dtype, groups and seed alone
};

// The guidance of all linears, from one pass of the float model forward and one back (Kim et al. 2025, GuidedQuant, arXiv 2505.07004),
// durable block by block: in `folder` stays groups · tokens · 2 bytes a linear; while it is made, hidden states in front of every block.
class Guidance {
 public:
  // Makes what is missing. passed: after each block, with what is done of all. Throws as a run does.
  Guidance(const std::shared_ptr<const Model>& model, Decoder& decoder, const TokenSet& tokens, const GuidanceOptions& options, const Control& control,
           const std::function<void(int block, double share)>& passed);

  // By linear of the block. Of one that the loss does not depend on, an expert that nobody chose for one: 1 for all tokens, 0 for outputs.
  std::vector<LinearGuidance> of(int block, at::Device device) const;

 private:
  std::filesystem::path place(int block) const;
  std::filesystem::path folder_;
  std::vector<CheckedSafetensors> blocks_;  // mapped: whoever clears the folder meanwhile takes nothing away
  std::vector<size_t> linears_;             // of each block
};

}  // namespace qb
