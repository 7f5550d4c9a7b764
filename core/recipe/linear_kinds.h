#pragma once
#include <string>

namespace qb {

// A linear's name inside its block with numbers left open: "mlp.experts.3.up_proj" → "mlp.experts.*.up_proj".
std::string kind_of_linear(const std::string& name);
// A name or a kind for a regular expression; "*" stands for a number.
std::string pattern_text(const std::string& text);

}  // namespace qb
