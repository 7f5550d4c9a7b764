#pragma once
#include <string>
#include <vector>

#include "core/text/json_field.h"

namespace qb {

// The tokens that go around a text: what a tokenizer.json's "post_processor" makes of one sequence.
struct SpecialFrame {
  std::vector<int32_t> before, after;
  bool drops_text = false;  // a template without the sequence

  std::vector<int32_t> around(std::vector<int32_t> ids) const;
};

// Throws InputError naming the field for an unknown type, a token that the template does not explain, or a template
// that repeats the text.
SpecialFrame make_special_frame(const JsonField& description);

}  // namespace qb
