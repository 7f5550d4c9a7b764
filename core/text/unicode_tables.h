#pragma once
#include <cstdint>
#include <vector>

// Facts about code points as Hugging Face tokenizers knows them; see unicode.h for the questions to ask.
namespace qb::unicode {

struct CodePointRange {
  uint32_t first, last;
};
struct CategoryRange {
  uint32_t first, last;
  int category;
};
struct ScriptRange {
  const char* script;
  uint32_t first, last;
};
struct LowerRange {
  uint32_t first, last;
  int step, difference;
};

const std::vector<uint32_t>& category_changes();
const std::vector<CodePointRange>& extra_word();
const std::vector<CategoryRange>& since_unicode_14();
const std::vector<ScriptRange>& scripts_since_unicode_14();
const std::vector<CodePointRange>& extra_numeric();
const std::vector<CodePointRange>& extra_punctuation();
const std::vector<CodePointRange>& not_punctuation();
const std::vector<LowerRange>& lower_ranges();
const std::vector<CodePointRange>& accents();
const std::vector<CodePointRange>& inert_in_normalization();

}  // namespace qb::unicode
