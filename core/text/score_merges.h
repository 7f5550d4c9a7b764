#pragma once
#include <vector>

#include "core/text/merge_table.h"
#include "core/text/vocabulary.h"

namespace qb {

// SentencePiece's BPE as a table of merges: any two neighbours that spell a token merge, the token of highest score
// first, the leftmost of equals. mergeable[id]: a normal token (no control, byte or user-defined one).
MergeTable merges_from_scores(const Vocabulary& vocabulary, const std::vector<double>& scores, const std::vector<bool>& mergeable);

}  // namespace qb
