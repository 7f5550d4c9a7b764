#pragma once
#include "core/engine/engine.h"

namespace qb {

// The token embedding and the head, which no block holds: their codes have a file each beside those of the blocks.
struct VocabularyPart {
  std::string weight;  // canonical: "lm_head.weight"
  QuantSpec spec;
  HeadRounding rounding = HeadRounding::rtn;
};
// What a job makes codes of. A head that is tied to the embedding is one matrix with it. Throws InputError where the scheme says two
// things of it.
std::vector<VocabularyPart> vocabulary_parts(const Model& model, const Scheme& scheme);
// Where the model ties the two, what the scheme says of one is said of both: a rotation may part them.
Scheme with_tied_vocabulary(Scheme scheme, const Architecture& architecture);

// Files of what a run has in codes so far.
std::vector<std::filesystem::path> vocabulary_paths(const std::filesystem::path& folder);
// Those that are made before the blocks. One by HeadRounding::gptq is not among them even where it is there: blocks that are made again
// then have the bits that they had.
std::vector<std::filesystem::path> first_vocabulary(const EngineJob& job);
// Whether a part is there and sound.
bool has_vocabulary(const EngineJob& job, const VocabularyPart& part);
// Makes and writes a part. gram: XᵀX of what the head multiplies [in, in], for HeadRounding::gptq, with the settings of the pipeline's own
// gptq stage, or its defaults. A slice of rows is in memory at a time. on_vocabulary is called before the file is there.
void make_vocabulary(const EngineJob& job, const VocabularyPart& part, const at::Tensor& gram, const Control& control, const std::function<void(const VocabularyView&)>& on_vocabulary);
// A checkpoint's own.
void copy_vocabulary(const EngineJob& job, const Control& control, const std::function<void(const VocabularyView&)>& on_vocabulary);

}  // namespace qb
