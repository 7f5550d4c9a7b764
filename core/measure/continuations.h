#pragma once
#include "core/base/control.h"
#include "core/model/decoder.h"

namespace qb {

// A text of which the last tokens are asked for: how likely are they behind those before them?
struct Continuation {
  std::vector<int32_t> tokens;
  int64_t asked = 0;  // of the tokens, from the end; at least one token stands before them
};

struct ContinuationSpec {
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  LinearTap tap;                        // activation fake-quantization, may be empty
  CacheTap cache_tap = {};              // of keys and values, may be empty
  bool by_token = true;                 // taps look at one token at a time, so that sequences may share a pass
  int64_t row_tokens = 2048;            // computed at once
  int64_t held_tokens = 32768;          // hidden states held while a block is loaded
  std::string stage;                    // shown as progress
};

// Σ log p of the tokens asked for, in the order of `wanted`. Block by block as perplexity does; what sequences begin with
// alike is computed once, and only what predicts a token asked for goes through the head. Layers that carry more than keys
// and values from token to token, ropes that change with a sequence's length and activations rounded over all tokens at
// once get every sequence by itself.
// Throws InputError when a log-probability is no number.
std::vector<double> log_probabilities(std::shared_ptr<const Model> model, TensorSourcePtr source, const std::vector<Continuation>& wanted,
                                      const ContinuationSpec& spec, const Control& control = {});

}  // namespace qb
