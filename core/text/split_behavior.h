#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "core/text/json_field.h"
#include "core/text/piece.h"

namespace qb {

// What becomes of a delimiter between pieces; names as in tokenizer.json.
enum class SplitBehavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };
SplitBehavior read_split_behavior(const JsonField& name);

// A stretch of a piece, and whether the pattern matched it. Spans cover the piece without gaps.
struct Span {
  size_t begin, end;
  bool matched;
};

// Passes on the pieces that the behaviour makes of these spans; empty ones are left out.
void emit_spans(std::string_view piece, std::vector<Span>& spans, SplitBehavior behavior, bool at_start, PieceSink& next);

}  // namespace qb
