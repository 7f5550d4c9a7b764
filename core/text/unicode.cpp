#include "core/text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>

#include "core/base/error.h"
#include "core/text/utf8.h"

namespace qb::unicode {
namespace {

constexpr uint32_t code_points = 0x110000;

bool contains(const std::vector<CodePointRange>& ranges, uint32_t c) {
  auto it = std::upper_bound(ranges.begin(), ranges.end(), c, [](uint32_t value, const CodePointRange& r) { return value < r.first; });
  return it != ranges.begin() && c <= std::prev(it)->last;
}

uint8_t classes_of(Category k) {
  switch (k) {
    case Lu: case Ll: case Lt: case Lm: case Lo: return letter | word;
    case Mn: case Mc: case Me: return mark | word;
    case Nd: return number | word;
    case Nl: case No: return number;
    case Pc: return punctuation | word;
    case Pd: case Ps: case Pe: case Pi: case Pf: case Po: return punctuation;
    case Sm: case Sc: case Sk: case So: return symbol;
    case Zs: case Zl: case Zp: return space;
    default: return 0;
  }
}

std::string normalize_known(std::string_view text, Form form) {
  int options = UTF8PROC_STABLE;
  options |= form == Form::nfc || form == Form::nfkc ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == Form::nfkc || form == Form::nfkd) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* out = nullptr;
  const auto length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()), &out,
                                   static_cast<utf8proc_option_t>(options));
  if (length < 0) throw InternalError(std::string("Unicode normalization failed: ") + utf8proc_errmsg(length));
  std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(out, &std::free);
  return {reinterpret_cast<const char*>(out), static_cast<size_t>(length)};
}

// Characters newer than tokenizers' tables are starters that never combine there, so the text falls apart at them.
void normalize_stretch(std::string_view text, Form form, std::string& out) {
  const auto& inert = inert_in_normalization();
  const char *begin = text.data(), *end = begin + text.size(), *from = begin;
  for (const char* p = begin; p < end;) {
    const auto [c, n] = utf8::decode(p);
    if (c >= inert.front().first && contains(inert, c)) {
      if (from < p) out += normalize_known({from, static_cast<size_t>(p - from)}, form);
      out.append(p, static_cast<size_t>(n));
      from = p + n;
    }
    p += n;
  }
  if (from < end) out += normalize_known({from, static_cast<size_t>(end - from)}, form);
}

// Made of nothing but common starters that are composed already and compose with none of each other.
bool stable_in_nfc(std::string_view text) {
  for (const char *p = text.data(), *end = p + text.size(); p < end;) {
    const auto [c, n] = utf8::decode(p);
    const bool stable = c < 0x300 || (c >= 0x400 && c < 0x460) || (c >= 0x2010 && c < 0x2028) || (c >= 0x2030 && c < 0x205F) ||
                        (c >= 0x3001 && c < 0x302A) || (c >= 0x3041 && c < 0x3097) || (c >= 0x30A1 && c < 0x30FB) ||
                        (c >= 0x4E00 && c < 0xA000) || (c >= 0xAC00 && c < 0xD7A4) || (c >= 0x1F300 && c < 0x1F700);
    if (!stable) return false;
    p += n;
  }
  return true;
}

uint32_t lower(uint32_t c) {
  const auto& ranges = lower_ranges();
  auto it = std::upper_bound(ranges.begin(), ranges.end(), c, [](uint32_t value, const LowerRange& r) { return value < r.first; });
  if (it == ranges.begin() || c > (--it)->last || (c - it->first) % static_cast<uint32_t>(it->step) != 0) return c;
  return c + static_cast<uint32_t>(it->difference);
}

}  // namespace

Table::Table() {
  std::vector<uint8_t> category_of(code_points), classes_of_point(code_points);
  const auto& changes = category_changes();
  for (size_t i = 0; i < changes.size(); ++i) {
    const uint32_t first = changes[i] >> 5, end = i + 1 < changes.size() ? changes[i + 1] >> 5 : code_points;
    const auto k = static_cast<Category>(changes[i] & 31);
    std::fill(category_of.begin() + first, category_of.begin() + end, k);
    std::fill(classes_of_point.begin() + first, classes_of_point.begin() + end, classes_of(k));
  }
  for (uint32_t c : {0x9u, 0xAu, 0xBu, 0xCu, 0xDu, 0x85u}) classes_of_point[c] |= space;
  classes_of_point['\n'] |= newline;
  classes_of_point['\r'] |= newline;
  for (const auto& r : extra_word())
    for (uint32_t c = r.first; c <= r.last; ++c) classes_of_point[c] |= word;

  std::map<std::pair<std::vector<uint8_t>, std::vector<uint8_t>>, uint16_t> seen;
  for (uint32_t block = 0; block < code_points; block += 256) {
    std::vector<uint8_t> k(category_of.begin() + block, category_of.begin() + block + 256);
    std::vector<uint8_t> m(classes_of_point.begin() + block, classes_of_point.begin() + block + 256);
    const auto index = static_cast<uint16_t>(seen.size());
    auto [it, fresh] = seen.try_emplace({k, m}, index);
    if (fresh) {
      categories_.insert(categories_.end(), k.begin(), k.end());
      classes_.insert(classes_.end(), m.begin(), m.end());
    }
    blocks_.push_back(it->second);
  }
}

const Table& Table::get() {
  static const Table table;
  return table;
}

bool is_numeric(uint32_t c) { return (classes(c) & number) || contains(extra_numeric(), c); }

bool is_punctuation(uint32_t c) {
  if (classes(c) & punctuation) return !contains(not_punctuation(), c);
  return contains(extra_punctuation(), c);
}

bool is_rust_word(uint32_t c) {
  if (c == 0x200C || c == 0x200D) return true;
  return (classes(c) & word) && !(c < 0x100 && category(c) == No);
}

uint32_t category_mask(std::string_view name) {
  static const char* const names[] = {"Cn", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps",
                                      "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Co", "Cs"};
  uint32_t mask = 0;
  for (int i = 0; i < 30; ++i)
    if (name == names[i] || (name.size() == 1 && name[0] == names[i][0])) mask |= 1u << i;
  return mask;
}

std::string normalize(std::string_view text, Form form) {
  // ASCII is stable, and a text falls apart before every ASCII character: only the stretches of other characters, each
  // with the one ASCII character before it (a base for marks), are looked at.
  std::string out;
  const char *begin = text.data(), *end = begin + text.size(), *done = begin;
  auto ascii = [](char c) { return static_cast<signed char>(c) >= 0; };
  for (const char* p = begin; p < end;) {
    p = std::find_if_not(p, end, ascii);
    if (p == end) break;
    const char* from = p > done ? p - 1 : p;
    const char* to = std::find_if(p, end, ascii);
    if (form != Form::nfc || !stable_in_nfc({p, static_cast<size_t>(to - p)})) {
      out.append(done, from);
      normalize_stretch({from, static_cast<size_t>(to - from)}, form, out);
      done = to;
    }
    p = to;
  }
  if (done == begin) return std::string(text);
  out.append(done, end);
  return out;
}

std::string lowercase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char *p = text.data(), *end = p + text.size(); p < end;) {
    const auto [c, n] = utf8::decode(p);
    p += n;
    if (c < 0x80) {
      out += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
    } else if (c == 0x130) {
      out += "i\xCC\x87";  // i with combining dot above, the one lower case of two characters
    } else {
      utf8::append(out, lower(c));
    }
  }
  return out;
}

std::string strip_accents(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char *p = text.data(), *end = p + text.size(); p < end;) {
    const auto [c, n] = utf8::decode(p);
    if (c < 0x300 || !contains(accents(), c)) out.append(p, static_cast<size_t>(n));
    p += n;
  }
  return out;
}

}  // namespace qb::unicode
