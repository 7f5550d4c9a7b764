#pragma once
#include <memory>
#include <string_view>
#include <vector>

#include "core/text/json_field.h"
#include "core/text/piece.h"

namespace qb {

// One step that cuts a piece of text into smaller ones (and may rewrite them), passing each on in order.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void split(std::string_view piece, bool at_start, PieceSink& next) const = 0;
};

// The steps of tokenizer.json's "pre_tokenizer", sequences flattened.
struct PreTokenization {
  std::vector<std::unique_ptr<PreTokenizer>> steps;
  // The last step is ByteLevel: pieces come as raw bytes, and the model spells them in GPT-2's alphabet.
  bool byte_level = false;

  void split(std::string_view text, bool at_start, PieceSink& end) const;
};

// Throws InputError naming the field for an unknown type or a bad parameter.
PreTokenization make_pre_tokenization(const JsonField& description);

}  // namespace qb
