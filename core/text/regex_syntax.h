#pragma once
#include <string>
#include <string_view>

namespace qb {

// Rewrites a pattern in Oniguruma's Ruby syntax, as tokenizer.json holds it, for PCRE2, where the two read the same
// text differently: classes of characters (Unicode 16's instead of the library's), \s \w \d \h \b, ^ and $ (always at
// line ends), (?m) (a dot that matches newlines), set intersection (&&) and nested sets.
// Throws InputError naming `origin` for what has no counterpart.
std::string pcre_from_oniguruma(std::string_view pattern, const std::string& origin);

// The text with every special character escaped.
std::string escape_regex(std::string_view text);

}  // namespace qb
