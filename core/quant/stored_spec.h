#pragma once
#include <string>

#include "core/quant/scheme.h"

namespace qb {

// What stored numbers mean, as one JSON object: {"type":"int4","symmetric":false,"granularity":"group","group_size":64,"zero_point":"code",
// "scale_type":"float16"}, or {"storage":"q4_K"}. How the numbers were found (ranges, searches) is not in it.
std::string stored_spec(const QuantSpec& spec);
// Throws InputError naming `what`, the key, what was found and what was expected.
QuantSpec parse_stored_spec(const std::string& json, const std::string& what);
// Only what the JSON form says, the rest at its defaults: specs whose numbers mean the same are equal.
QuantSpec meaning_of(const QuantSpec& spec);
// The same for what is rounded at run time, where the way to a scale counts too: keys and values.
QuantSpec cache_meaning(const QuantSpec& spec);
std::string stored_cache_spec(const QuantSpec& spec);
QuantSpec parse_stored_cache_spec(const std::string& json, const std::string& what);

}  // namespace qb
