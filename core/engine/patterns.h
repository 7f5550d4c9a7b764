#pragma once
#include <string>
#include <vector>

#include "core/model/model.h"
#include "core/quant/scheme.h"

namespace qb {

// What a pattern of `ignore` names where it names no linear of a block: "routers", "parts for images and sound", "norms" … of any
// model, as lists made for other programs have them, or other tensors of this one. Empty: nothing at all.
std::string other_part(const std::string& pattern, const Model& model);
// A sentence for each pattern of `ignore` that keeps only what is never quantized; heads are in every list, and worth one only where the
// scheme quantizes them all the same.
std::vector<std::string> ignore_notes(const Scheme& scheme, const Model& model);
// InputError for a pattern that matches nothing, with the nearest names.
void require_matches(const Scheme& scheme, const Model& model);

}  // namespace qb
