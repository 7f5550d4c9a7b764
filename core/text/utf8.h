#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace qb::utf8 {

// Length in bytes of the character that starts with this lead byte, of valid UTF-8.
inline int length(char lead) {
  const auto b = static_cast<unsigned char>(lead);
  return b < 0x80 ? 1 : b < 0xE0 ? 2 : b < 0xF0 ? 3 : 4;
}

struct Decoded {
  uint32_t code_point;
  int bytes;
};

// The character at p, of valid UTF-8 (nothing is checked).
inline Decoded decode(const char* p) {
  const auto* b = reinterpret_cast<const unsigned char*>(p);
  if (b[0] < 0x80) return {b[0], 1};
  if (b[0] < 0xE0) return {(b[0] & 0x1Fu) << 6 | (b[1] & 0x3Fu), 2};
  if (b[0] < 0xF0) return {(b[0] & 0x0Fu) << 12 | (b[1] & 0x3Fu) << 6 | (b[2] & 0x3Fu), 3};
  return {(b[0] & 0x07u) << 18 | (b[1] & 0x3Fu) << 12 | (b[2] & 0x3Fu) << 6 | (b[3] & 0x3Fu), 4};
}

// Start of the character that ends just before p.
inline const char* previous(const char* p) {
  do --p;
  while ((static_cast<unsigned char>(*p) & 0xC0) == 0x80);
  return p;
}

void append(std::string& out, uint32_t code_point);
std::string encode(uint32_t code_point);
bool valid(std::string_view text);
size_t first_invalid(std::string_view text);  // the byte where the text stops being UTF-8; npos: nowhere

// Each maximal ill-formed part becomes U+FFFD, as Unicode recommends and as Rust's and Python's lossy decoding do.
std::string replace_invalid(std::string_view text);

}  // namespace qb::utf8
