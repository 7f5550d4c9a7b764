#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qb {

// SentencePiece's compiled normalization rules (a Darts double array and the texts it points into), applied grapheme
// by grapheme as Hugging Face tokenizers does.
class PrecompiledMap {
 public:
  // base64: as tokenizer.json holds it. Throws InputError naming `where` for a table that does not hold together.
  PrecompiledMap(std::string_view base64, const std::string& where);
  std::string apply(std::string_view text) const;

 private:
  std::optional<std::string_view> find(std::string_view chunk) const;
  std::vector<uint32_t> units_;
  std::string texts_;
};

}  // namespace qb
