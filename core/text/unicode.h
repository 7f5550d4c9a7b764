#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/unicode_tables.h"

// What tokenizers ask about characters. Answers are those of Hugging Face tokenizers (Oniguruma's Unicode 16; where
// its Rust parts differ, the function says so), whatever Unicode version this machine's libraries know.
namespace qb::unicode {

enum Category : uint8_t {
  Cn, Lu, Ll, Lt, Lm, Lo, Mn, Mc, Me, Nd, Nl, No, Pc, Pd, Ps, Pe, Pi, Pf, Po, Sm, Sc, Sk, So, Zs, Zl, Zp, Cc, Cf, Co, Cs,
};

// One bit a class, so that a scanner's test is one look-up and one mask.
enum Class : uint8_t {
  letter = 1,       // \p{L}
  number = 2,       // \p{N}
  space = 4,        // \s, White_Space
  newline = 8,      // \r and \n
  mark = 16,        // \p{M}
  word = 32,        // Oniguruma's \w
  punctuation = 64, // \p{P}
  symbol = 128,     // \p{S}
};

// Two-stage tables: 256 code points a block, equal blocks shared.
class Table {
 public:
  static const Table& get();
  uint8_t classes(uint32_t c) const { return classes_[blocks_[c >> 8] << 8 | (c & 0xFF)]; }
  const uint8_t* first_block() const { return classes_.data() + (blocks_[0] << 8); }  // classes of U+0000…U+00FF
  Category category(uint32_t c) const { return static_cast<Category>(categories_[blocks_[c >> 8] << 8 | (c & 0xFF)]); }

 private:
  Table();
  std::vector<uint16_t> blocks_;
  std::vector<uint8_t> classes_, categories_;
};

inline Category category(uint32_t c) { return Table::get().category(c); }
inline uint8_t classes(uint32_t c) { return Table::get().classes(c); }
inline bool is_space(uint32_t c) { return classes(c) & space; }

bool is_numeric(uint32_t c);      // Rust's char::is_numeric
bool is_punctuation(uint32_t c);  // ASCII punctuation and an older category P, as the pre-tokenizers take it
bool is_rust_word(uint32_t c);    // \w of Rust's regex crate: Oniguruma's with the joiners, without superscript numbers

// "L", "Nd" … → the categories it stands for as bits (1 << Category); 0 for an unknown name.
uint32_t category_mask(std::string_view name);

enum class Form { nfc, nfd, nfkc, nfkd };
// Normalization by utf8proc, with what tokenizers' older tables do not know left as it is.
std::string normalize(std::string_view text, Form form);
std::string lowercase(std::string_view text);      // character by character, no context
std::string strip_accents(std::string_view text);  // removes combining marks

}  // namespace qb::unicode
