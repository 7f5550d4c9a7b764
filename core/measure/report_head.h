#pragma once
#include <string>

namespace qb {

// The JSON text of a run's report with empty lists for its blocks and vocabulary, which are nearly all of it: what lists of
// runs need, for a hundredth of the time. What is left out is skipped, not looked at: damage inside goes unnoticed until the
// whole is read. InputError naming `origin` where the text is no object or ends too early.
std::string report_head(const std::string& json, const std::string& origin);

}  // namespace qb
