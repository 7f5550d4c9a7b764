#pragma once
#include <functional>

#include "core/base/knob.h"
#include "core/quant/scheme.h"

namespace qb {

// What a QuantSpec is of: the key in a scheme, too ("weights", "activations", "kv_cache").
enum class SpecRole { weights, activations, cache };
std::string to_text(SpecRole role);
// Where a recipe, or who switches it on in a form, does not say.
QuantSpec default_spec(SpecRole role);

// One field of a QuantSpec, as one role has it. YAML and its ranges, the JSON of stored numbers, the form and the command line's
// list are made from these rows.
struct SpecField {
  using Test = std::function<bool(const QuantSpec&)>;
  // What becomes of it where `type` is a storage type.
  enum class ByType { fixed, own_search, free };

  KnobInfo knob;                           // default_value: of default_spec(role); choices: those that the role offers, "" for an open one
  std::vector<std::string> choice_titles;  // beside choices, for people; empty: the choices themselves
  std::string expected;                    // choice: what recipes may say, for their errors
  bool offered = true;                     // has a meaning for the role; other fields are read, and refused with the reason where they say anything
  ByType by_type = ByType::fixed;
  std::function<KnobValue(const QuantSpec&)> get;
  std::function<bool(QuantSpec&, const KnobValue&)> set;  // false: a choice that there is not
  std::function<void(QuantSpec&)> settle;  // after a choice in a form: makes what would contradict it follow; may be empty
  Test applies;                            // has a meaning beside what the other fields say
  Test written;                            // stands in canonical YAML
  Test stored;                             // is part of what stored numbers mean (core/quant/stored_spec.h)
};

// In the order of canonical YAML; the first is "type".
const std::vector<SpecField>& spec_fields(SpecRole role);
// nullptr when the role has none of that name.
const SpecField* find_spec_field(SpecRole role, const std::string& name);
// Sets a field and what follows from it; false: a choice that there is not.
bool choose(QuantSpec& spec, const SpecField& field, const KnobValue& value);
// Whether canonical YAML has it.
bool is_written(const SpecField& field, const QuantSpec& spec);

}  // namespace qb
