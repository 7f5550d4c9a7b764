#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace qb {

// GPT-2's alphabet: every byte as one printable character (a space is "Ġ").
class ByteAlphabet {
 public:
  static const ByteAlphabet& get();
  const std::string& character(uint8_t byte) const { return characters_[byte]; }  // in UTF-8
  std::string spell(std::string_view bytes) const;
  // The bytes behind a spelling; nullopt when a character is not of the alphabet.
  std::optional<std::string> read(std::string_view spelling) const;

 private:
  ByteAlphabet();
  std::array<std::string, 256> characters_;
  std::array<int16_t, 512> bytes_;  // code point → byte or -1
};

}  // namespace qb
