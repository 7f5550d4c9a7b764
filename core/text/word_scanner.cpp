#include "core/text/word_scanner.h"

#include "core/text/unicode.h"
#include "core/text/utf8.h"

namespace qb {
namespace {

using unicode::letter, unicode::number, unicode::space, unicode::newline, unicode::mark;

// A cursor over classes: one table look-up for ASCII, two for the rest.
class Scanner {
 public:
  Scanner(std::string_view text, uint8_t letters) : end_(text.data() + text.size()), letters_(letters) {}

  struct Seen {
    uint8_t classes;
    int bytes;
  };
  Seen look(const char* p) const {
    const auto b = static_cast<unsigned char>(*p);
    if (b < 0x80) return {ascii_[b], 1};
    const auto [c, n] = utf8::decode(p);
    return {table_.classes(c), n};
  }
  bool is_letter(Seen s) const { return s.classes & letters_; }
  static bool is_number(Seen s) { return s.classes & number; }
  bool is_other(Seen s) const { return !(s.classes & (letters_ | number | space)); }

  // The first place from p on whose character has none of the classes in the mask.
  const char* skip(const char* p, uint8_t mask) const {
    while (p < end_) {
      const Seen s = look(p);
      if (!(s.classes & mask)) break;
      p += s.bytes;
    }
    return p;
  }
  const char* skip_others(const char* p) const {
    while (p < end_) {
      const Seen s = look(p);
      if (!is_other(s)) break;
      p += s.bytes;
    }
    return p;
  }

  // 's 't 're 've 'm 'll 'd at p, 0 where there is none. Folding takes the long s (U+017F) for an s besides.
  int contraction(const char* p, bool fold) const {
    if (end_ - p < 2) return 0;
    auto lower = [&](char c) { return fold && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
    const char a = lower(p[1]);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if (end_ - p < 3) return 0;
    const char b = lower(p[2]);
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
    if (fold && p[1] == '\xC5' && p[2] == '\xBF') return 3;
    return 0;
  }

  // \s+(?!\S)|\s+ at a space: all of them, but the last where a word follows.
  const char* spaces(const char* p) const {
    const char *last = p, *q = p;
    while (q < end_) {
      const Seen s = look(q);
      if (!(s.classes & space)) break;
      last = q;
      q += s.bytes;
    }
    return q == end_ || last == p ? q : last;
  }

  const char* end() const { return end_; }

 private:
  const char* end_;
  uint8_t letters_;
  const unicode::Table& table_ = unicode::Table::get();
  const uint8_t* ascii_ = table_.first_block();
};

const char* next_gpt2(const Scanner& s, const char* p) {
  if (*p == '\'')
    if (const int n = s.contraction(p, false)) return p + n;
  Scanner::Seen here = s.look(p);
  const char* q = p;
  if (*p == ' ' && p + 1 < s.end()) {
    const Scanner::Seen after = s.look(p + 1);
    if (!(after.classes & space)) {
      here = after;
      q = p + 1;
    }
  }
  if (here.classes & letter) return s.skip(q + here.bytes, letter);
  if (here.classes & number) return s.skip(q + here.bytes, number);
  if (!(here.classes & space)) return s.skip_others(q + here.bytes);
  return s.spaces(p);
}

const char* next_cl100k(const Scanner& s, const char* p, int digits, uint8_t letters) {
  if (*p == '\'')
    if (const int n = s.contraction(p, true)) return p + n;
  const Scanner::Seen here = s.look(p);
  if (here.classes & letters && !(here.classes & letter)) {
    // A mark may also be the one character before a word, which changes nothing: letters follow either way.
    return s.skip(p + here.bytes, letters);
  }
  if (here.classes & letter) return s.skip(p + here.bytes, letters);
  const char* q = p + here.bytes;
  if (here.classes & number) {
    for (int n = 1; n < digits && q < s.end(); ++n) {
      const Scanner::Seen next = s.look(q);
      if (!(next.classes & number)) break;
      q += next.bytes;
    }
    return q;
  }
  if (!(here.classes & newline) && q < s.end()) {
    const Scanner::Seen next = s.look(q);
    if (s.is_letter(next)) return s.skip(q + next.bytes, letters);
    if (*p == ' ' && s.is_other(next)) return s.skip(s.skip_others(q + next.bytes), newline);
  }
  if (!(here.classes & space)) return s.skip(s.skip_others(q), newline);
  // \s*[\r\n]+ : through the last line break of this run of spaces
  const char *after_break = nullptr, *r = p;
  while (r < s.end()) {
    const Scanner::Seen seen = s.look(r);
    if (!(seen.classes & space)) break;
    r += seen.bytes;
    if (seen.classes & newline) after_break = r;
  }
  return after_break ? after_break : s.spaces(p);
}

struct Known {
  std::string_view text;
  WordPattern pattern;
};

}  // namespace

const std::string_view gpt2_pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

std::optional<WordPattern> known_pattern(std::string_view pattern) {
  using F = WordPattern::Family;
  static const Known known[] = {
      {gpt2_pattern, {F::gpt2}},
      {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
       {F::cl100k, 3}},
      {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)", {F::cl100k, 1}},
      {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
       {F::cl100k, 1, true}},
  };
  for (const auto& k : known)
    if (k.text == pattern) return k.pattern;
  return std::nullopt;
}

void scan_words(const WordPattern& pattern, std::string_view text, PieceSink& sink, bool at_start) {
  const uint8_t letters = pattern.marks_in_words ? letter | mark : letter;
  const Scanner s(text, letters);
  for (const char *p = text.data(), *end = p + text.size(); p < end;) {
    const char* next = pattern.family == WordPattern::Family::gpt2 ? next_gpt2(s, p) : next_cl100k(s, p, pattern.digits, letters);
    sink.take({p, static_cast<size_t>(next - p)}, at_start && p == text.data());
    p = next;
  }
}

}  // namespace qb
