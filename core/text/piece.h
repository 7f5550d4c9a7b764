#pragma once
#include <string_view>

namespace qb {

// Takes the pieces of a text one by one, in order; a piece is only valid during the call.
class PieceSink {
 public:
  virtual ~PieceSink() = default;
  // at_start: the piece begins where the whole text begins.
  virtual void take(std::string_view piece, bool at_start) = 0;
};

}  // namespace qb
