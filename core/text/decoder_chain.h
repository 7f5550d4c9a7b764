#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/text/json_field.h"

namespace qb {

// One step from token spellings back to text.
class DecoderStep {
 public:
  virtual ~DecoderStep() = default;
  virtual void apply(std::vector<std::string>& tokens) const = 0;
};

// From tokenizer.json's "decoder", sequences flattened; empty without one.
// Throws InputError naming the field for an unknown type or a bad parameter.
std::vector<std::unique_ptr<DecoderStep>> make_decoder(const JsonField& description);

}  // namespace qb
