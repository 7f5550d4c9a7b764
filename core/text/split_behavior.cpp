#include "core/text/split_behavior.h"

#include <algorithm>

namespace qb {

SplitBehavior read_split_behavior(const JsonField& field) {
  const std::string name = field.text();
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  field.fail("expected Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous, found '" + name + "'");
}

void emit_spans(std::string_view piece, std::vector<Span>& spans, SplitBehavior behavior, bool at_start, PieceSink& next) {
  std::vector<Span> merged;
  // A delimiter joins the span before it (in reading order, or backwards for merged_with_next), unless that is one too.
  auto join = [&](auto first, auto last, bool forward) {
    bool previous = false;
    for (auto it = first; it != last; ++it) {
      const bool joins = behavior == SplitBehavior::contiguous ? it->matched == previous : it->matched && !previous;
      previous = it->matched;
      if (joins && !merged.empty()) {
        (forward ? merged.back().end : merged.back().begin) = forward ? it->end : it->begin;
      } else {
        merged.push_back(*it);
      }
    }
  };
  const std::vector<Span>* out = &merged;
  switch (behavior) {
    case SplitBehavior::removed:
    case SplitBehavior::isolated: out = &spans; break;
    case SplitBehavior::contiguous:
    case SplitBehavior::merged_with_previous: join(spans.begin(), spans.end(), true); break;
    case SplitBehavior::merged_with_next:
      join(spans.rbegin(), spans.rend(), false);
      std::reverse(merged.begin(), merged.end());
      break;
  }
  for (const Span& s : *out) {
    if (s.begin == s.end || (behavior == SplitBehavior::removed && s.matched)) continue;
    next.take(piece.substr(s.begin, s.end - s.begin), at_start && s.begin == 0);
  }
}

}  // namespace qb
