#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/model/config_fields.h"

namespace qb {

// A key that may stand in a configuration although nothing reads it.
struct HarmlessKey {
  std::string key;                    // a "*" at its beginning or end stands for anything
  std::vector<nlohmann::json> values; // at these values only (of a list: each entry); empty: at any
};

// Bookkeeping, training and generation settings that say nothing about the forward pass of any family.
const std::vector<HarmlessKey>& harmless_keys();

// Refuses the first key of `fields` that was neither read nor is known to be harmless, by the shared list or the family's.
// Throws InputError naming file, key, value, and what was expected.
void require_understood(const ConfigFields& fields, const std::string& family, const std::vector<HarmlessKey>& of_family);

// Keys beside a text_config belong to the other modalities. What the text part reads must not be said otherwise there, and
// shared keys that are harmless at some values only must have them.
void require_understood_wrapper(const ConfigFields& outer, const ConfigFields& text, const std::string& family);

// Whether a tensor that nothing reads may lie beside those that are read: masks, rotary tables, scales of caches.
bool harmless_tensor(const std::string& name);

}  // namespace qb
