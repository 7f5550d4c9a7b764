#pragma once
#include <optional>
#include <string>
#include <vector>

#include "core/model/families.h"

namespace qb {

// The text model inside a multimodal one.
struct TextPart {
  ConfigFields fields;     // with the values that it takes from the whole
  std::string model_type;
  bool plain_head = true;  // the whole has a head of its own, which neither scales nor caps logits
};

// Nothing when the configuration is a text model's own.
std::optional<TextPart> text_part(const ConfigFields& whole);

// Keys that multimodal models keep in their text model's configuration and that are the other modalities'.
const std::vector<HarmlessKey>& harmless_in_text_part();

// Rows of text models that exist inside multimodal ones only.
std::vector<Family> multimodal_families();

}  // namespace qb
