#pragma once
#include "core/base/control.h"
#include "core/engine/engine.h"
#include "core/format/imatrix.h"
#include "core/method/method.h"
#include "core/text/corpus.h"

namespace qb {

// Sums of squares of what each linear reads when the float model passes over these tokens, under GGUF's names: llama.cpp's importance
// matrix. Memory is one block and the hidden states. Throws Cancelled, InputError where a family has no names in GGUF.
ImportanceMatrix importance_matrix(const std::shared_ptr<const Model>& model, const TokenSet& tokens, at::ScalarType dtype, at::Device device, const std::filesystem::path& scratch,
                                   const Control& control);

// Throws InputError naming the file, the entry and the linear where the job's matrix cannot stand for what a pass would collect: a linear that
// it has no entry for, one of another width, sums of no token (but for an expert, which a text may leave out).
void require_importance(const EngineJob& job);
// Puts the job's sums in the place of collected ones, as of the float model. A linear that no token reached is told so.
void use_importance(const EngineJob& job, BlockWork& work);

}  // namespace qb
