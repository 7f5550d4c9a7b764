#include "core/text/utf8.h"

#include <cstring>

namespace qb::utf8 {
namespace {

struct Step {
  int bytes;
  bool well_formed;
};

// One character, or the longest prefix of one that is followed by something else (Unicode 15, table 3-7 and section 3.9).
Step step(const unsigned char* p, const unsigned char* end) {
  const unsigned char lead = p[0];
  if (lead < 0x80) return {1, true};
  int more = 0;
  unsigned char low = 0x80, high = 0xBF;  // bounds of the second byte
  if (lead >= 0xC2 && lead <= 0xDF) {
    more = 1;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    more = 2;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    more = 3;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {1, false};
  }
  for (int i = 1; i <= more; ++i) {
    if (p + i == end || p[i] < low || p[i] > high) return {i, false};
    low = 0x80;
    high = 0xBF;
  }
  return {more + 1, true};
}

// Skips whole words of ASCII.
const unsigned char* skip_ascii(const unsigned char* p, const unsigned char* end) {
  while (end - p >= 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    if (word & 0x8080808080808080ull) break;
    p += 8;
  }
  return p;
}

const unsigned char* first_invalid(const unsigned char* p, const unsigned char* end) {
  while (p < end) {
    p = skip_ascii(p, end);
    if (p == end) break;
    const Step s = step(p, end);
    if (!s.well_formed) return p;
    p += s.bytes;
  }
  return end;
}

}  // namespace

void append(std::string& out, uint32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | c >> 6);
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | c >> 12);
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | c >> 18);
    out += static_cast<char>(0x80 | (c >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

std::string encode(uint32_t code_point) {
  std::string out;
  append(out, code_point);
  return out;
}

bool valid(std::string_view text) {
  const auto* begin = reinterpret_cast<const unsigned char*>(text.data());
  return first_invalid(begin, begin + text.size()) == begin + text.size();
}

size_t first_invalid(std::string_view text) {
  const auto* begin = reinterpret_cast<const unsigned char*>(text.data());
  const auto at = static_cast<size_t>(first_invalid(begin, begin + text.size()) - begin);
  return at == text.size() ? std::string_view::npos : at;
}

std::string replace_invalid(std::string_view text) {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data());
  const auto* end = p + text.size();
  std::string out;
  out.reserve(text.size() + 16);
  while (p < end) {
    const auto* good = first_invalid(p, end);
    out.append(reinterpret_cast<const char*>(p), static_cast<size_t>(good - p));
    if (good == end) break;
    out += "\xEF\xBF\xBD";
    p = good + step(good, end).bytes;
  }
  return out;
}

}  // namespace qb::utf8
