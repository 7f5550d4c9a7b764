#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/text/json_field.h"

namespace qb {

// One step of a tokenizer's normalization, changing a text (valid UTF-8) in place.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual void apply(std::string& text) const = 0;
};

// From tokenizer.json's "normalizer". Sequences are flattened, so an empty list means nothing to do.
// Throws InputError naming the field for an unknown type or a bad parameter.
std::vector<std::unique_ptr<Normalizer>> make_normalizers(const JsonField& description);

}  // namespace qb
