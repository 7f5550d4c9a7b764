#pragma once
#include "core/base/control.h"
#include "core/format/imatrix.h"
#include "core/method/method.h"
#include "core/text/corpus.h"

namespace qb {

// Sums of squares of what each linear reads when the float model passes over these tokens, under GGUF's names: llama.cpp's importance
// matrix. Memory is one block and the hidden states. Throws Cancelled, InputError where a family has no names in GGUF.
ImportanceMatrix importance_matrix(const std::shared_ptr<const Model>& model, const TokenSet& tokens, at::ScalarType dtype, at::Device device, const std::filesystem::path& scratch,
                                   const Control& control);

}  // namespace qb
