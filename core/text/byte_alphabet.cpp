#include "core/text/byte_alphabet.h"

#include "core/text/utf8.h"

namespace qb {

ByteAlphabet::ByteAlphabet() {
  bytes_.fill(-1);
  uint32_t next = 256;
  for (uint32_t b = 0; b < 256; ++b) {
    const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    const uint32_t c = printable ? b : next++;
    characters_[b] = utf8::encode(c);
    bytes_[c] = static_cast<int16_t>(b);
  }
}

const ByteAlphabet& ByteAlphabet::get() {
  static const ByteAlphabet alphabet;
  return alphabet;
}

std::string ByteAlphabet::spell(std::string_view bytes) const {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (char b : bytes) out += characters_[static_cast<uint8_t>(b)];
  return out;
}

std::optional<std::string> ByteAlphabet::read(std::string_view spelling) const {
  std::string out;
  out.reserve(spelling.size());
  for (const char *p = spelling.data(), *end = p + spelling.size(); p < end;) {
    const auto [c, n] = utf8::decode(p);
    if (c >= bytes_.size() || bytes_[c] < 0) return std::nullopt;
    out += static_cast<char>(bytes_[c]);
    p += n;
  }
  return out;
}

}  // namespace qb
