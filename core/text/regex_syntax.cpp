#include "core/text/regex_syntax.h"

#include <fmt/format.h>

#include <cctype>
#include <vector>

#include "core/base/error.h"
#include "core/text/unicode.h"
#include "core/text/utf8.h"

namespace qb {
namespace {

// White_Space; PCRE2's own \s has U+180E besides.
constexpr std::string_view spaces =
    "\\t-\\r\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}";

std::string range_text(uint32_t first, uint32_t last) {
  return first == last ? fmt::format("\\x{{{:x}}}", first) : fmt::format("\\x{{{:x}}}-\\x{{{:x}}}", first, last);
}

// What the named categories gained since the oldest PCRE2, as ranges for the inside of a class.
std::string newer_members(uint32_t mask) {
  std::string out;
  for (const auto& r : unicode::since_unicode_14())
    if (mask >> r.category & 1) out += range_text(r.first, r.last);
  return out;
}

std::string newer_members_of_script(const std::string& script) {
  std::string out;
  for (const auto& r : unicode::scripts_since_unicode_14())
    if (script == r.script) out += range_text(r.first, r.last);
  return out;
}

std::string word_members() {
  std::string out = "\\p{L}\\p{M}\\p{Nd}\\p{Pc}";
  uint32_t mask = 0;
  for (const char* name : {"L", "M", "Nd", "Pc"}) mask |= unicode::category_mask(name);
  out += newer_members(mask);
  for (const auto& r : unicode::extra_word()) out += range_text(r.first, r.last);
  return out;
}

class Translator {
 public:
  Translator(std::string_view pattern, const std::string& origin) : p_(pattern), origin_(origin) {}

  std::string run() {
    while (at_ < p_.size()) {
      const char c = p_[at_];
      if (c == '\\') {
        outside_escape();
      } else if (c == '[') {
        out_ += set();
      } else if (c == '(' && p_.substr(at_, 2) == "(?") {
        group();
      } else if (c == '^') {
        out_ += "(?m:^)";
        ++at_;
      } else if (c == '$') {
        out_ += "(?m:$)";
        ++at_;
      } else {
        out_ += c;
        ++at_;
      }
    }
    return out_;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw InputError(fmt::format("{}: regular expression '{}': {} at byte {}", origin_, p_, what, at_));
  }

  // Options: Ruby's m is PCRE2's s; Ruby has no other meaning of multi-line.
  void group() {
    size_t i = at_ + 2;
    while (i < p_.size() && (std::isalpha(static_cast<unsigned char>(p_[i])) || p_[i] == '-')) ++i;
    if (i < p_.size() && i > at_ + 2 && (p_[i] == ':' || p_[i] == ')')) {
      for (; at_ <= i; ++at_) out_ += p_[at_] == 'm' ? 's' : p_[at_];
    } else {
      out_ += "(?";
      at_ += 2;
      if (at_ < p_.size()) out_ += p_[at_++];
    }
  }

  struct Members {
    std::string inside;     // as written between brackets
    bool negated = false;   // the class is the complement of `inside`
  };

  // \p{…} \P{…} \p{^…} \s \S \w \W \d \D \h \H at the backslash; false (and nothing consumed) for any other escape.
  bool property(Members& members) {
    const char c = at_ + 1 < p_.size() ? p_[at_ + 1] : '\0';
    switch (c) {
      case 's': case 'S': members = {std::string(spaces), c == 'S'}; break;
      case 'w': case 'W': members = {word_members(), c == 'W'}; break;
      case 'd': case 'D': members = {"\\p{Nd}" + newer_members(unicode::category_mask("Nd")), c == 'D'}; break;
      case 'h': case 'H': members = {"0-9a-fA-F", c == 'H'}; break;
      case 'p': case 'P': {
        size_t begin = at_ + 2, end = begin + 1;
        if (begin < p_.size() && p_[begin] == '{') {
          ++begin;
          end = p_.find('}', begin);
          if (end == std::string_view::npos) fail("a property without its closing brace");
        }
        std::string name(p_.substr(begin, end - begin));
        members.negated = c == 'P';
        if (!name.empty() && name[0] == '^') {
          members.negated = !members.negated;
          name.erase(0, 1);
        }
        static const std::pair<const char*, const char*> long_names[] = {
            {"Letter", "L"}, {"Mark", "M"}, {"Number", "N"}, {"Punctuation", "P"}, {"Punct", "P"}, {"Symbol", "S"}, {"Separator", "Z"},
            {"Other", "C"}};
        for (const auto& [full, brief] : long_names)
          if (name == full) name = brief;
        if (name == "Alpha" || name == "Alphabetic") fail("the property Alphabetic is not supported");
        members.inside = fmt::format("\\p{{{}}}", name) + newer_members(unicode::category_mask(name)) + newer_members_of_script(name);
        at_ = begin == at_ + 3 ? end + 1 : end;
        return true;
      }
      default: return false;
    }
    at_ += 2;
    return true;
  }

  void outside_escape() {
    Members members;
    if (property(members)) {
      out_ += (members.negated ? "[^" : "[") + members.inside + "]";
      return;
    }
    const char c = at_ + 1 < p_.size() ? p_[at_ + 1] : '\0';
    if (c == 'b' || c == 'B') {
      const std::string w = "[" + word_members() + "]";
      out_ += c == 'b' ? fmt::format("(?:(?<={0})(?!{0})|(?<!{0})(?={0}))", w) : fmt::format("(?:(?<={0})(?={0})|(?<!{0})(?!{0}))", w);
      at_ += 2;
    } else if (c == 'u') {
      out_ += code_point();
    } else if (c == '\0') {
      fail("a lone backslash");
    } else {
      out_ += p_.substr(at_, 2);
      at_ += 2;
    }
  }

  // \uHHHH, which PCRE2 spells \x{HHHH}.
  std::string code_point() {
    std::string digits(p_.substr(at_ + 2, 4));
    if (digits.size() < 4) fail("\\u needs four hexadecimal digits");
    for (char d : digits)
      if (!std::isxdigit(static_cast<unsigned char>(d))) fail("\\u needs four hexadecimal digits");
    at_ += 6;
    return "\\x{" + digits + "}";
  }

  // A whole bracketed set as a pattern that matches one character. A union that PCRE2 cannot write in one class becomes
  // an alternation, an intersection a look-ahead.
  std::string set() {
    ++at_;
    bool negated = false;
    if (at_ < p_.size() && p_[at_] == '^') {
      negated = true;
      ++at_;
    }
    std::vector<std::string> intersected;  // finished operands of &&
    std::string inside;                    // of the operand at work
    std::vector<std::string> others;       // its members that stand beside the class
    bool first = true;
    auto finish = [&] {
      std::vector<std::string> parts = others;
      if (!inside.empty()) parts.insert(parts.begin(), "[" + inside + "]");
      if (parts.empty()) fail("an empty set");
      std::string joined = parts[0];
      for (size_t i = 1; i < parts.size(); ++i) joined += "|" + parts[i];
      inside.clear();
      others.clear();
      return parts.size() == 1 ? joined : "(?:" + joined + ")";
    };
    for (;; first = false) {
      if (at_ >= p_.size()) fail("a set without its closing bracket");
      const char c = p_[at_];
      if (c == ']' && !first) break;
      if (p_.substr(at_, 2) == "&&") {
        intersected.push_back(finish());
        at_ += 2;
        continue;
      }
      if (p_.substr(at_, 2) == "[:") {
        const size_t end = p_.find(":]", at_);
        if (end == std::string_view::npos) fail("a class name without its end");
        inside += p_.substr(at_, end + 2 - at_);
        at_ = end + 2;
      } else if (c == '[') {
        others.push_back(set());
      } else if (c == '\\') {
        Members members;
        if (property(members)) {
          if (members.negated) {
            others.push_back("[^" + members.inside + "]");
          } else {
            inside += members.inside;
          }
        } else if (at_ + 1 < p_.size() && p_[at_ + 1] == 'u') {
          inside += code_point();
        } else {
          inside += p_.substr(at_, 2);
          at_ += 2;
        }
      } else {
        if (c == ']') inside += '\\';  // a bracket that comes first stands for itself
        inside += c;
        ++at_;
      }
    }
    ++at_;
    const bool plain = intersected.empty() && others.empty();
    if (plain) return (negated ? "[^" : "[") + inside + "]";
    const std::string last = finish();
    std::string matched = "(?:";
    for (const auto& operand : intersected) matched += "(?=" + operand + ")";
    matched += last + ")";
    return negated ? "(?:(?!" + matched + ")(?s:.))" : matched;
  }

  std::string_view p_;
  const std::string& origin_;
  size_t at_ = 0;
  std::string out_;
};

}  // namespace

std::string pcre_from_oniguruma(std::string_view pattern, const std::string& origin) { return Translator(pattern, origin).run(); }

std::string escape_regex(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (std::string_view("\\.+*?()|[]{}^$#&-~").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

}  // namespace qb
