#pragma once
#include <string>

#include "core/model/architecture.h"

namespace qb {

// The first thing in which two models compute otherwise in texts of at most `context` tokens, weights aside; empty: none. Numbers
// that a float32 does not tell apart are the same.
std::string difference(const Architecture& wanted, const Architecture& found, int64_t context);

}  // namespace qb
