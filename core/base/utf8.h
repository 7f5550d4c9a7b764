#pragma once
#include <string>
#include <string_view>

namespace qb {

// Well-formed UTF-8 (Unicode 3.9, table 3-7): no overlong forms, no surrogates, nothing above U+10FFFF.
bool is_utf8(std::string_view text);

// `text` on one line and fit for a message, whatever a file put into it: control characters and bytes that are not
// UTF-8 as \xNN, cut to about `limit` bytes with an ellipsis. quoted() adds double quotes.
std::string printable(std::string_view text, size_t limit = 160);
std::string quoted(std::string_view text, size_t limit = 160);

}  // namespace qb
