#pragma once
#include <memory>

#include "core/quant/quantized_model.h"
#include "core/recipe/recipe.h"

namespace qb {

// A recipe that names a checkpoint instead of a scheme and stages: the checkpoint is measured as if a pipeline had made it of
// `recipe.model`, its float original. Where that is the checkpoint itself there is no original, and only what needs none is measured.

// Whether the recipe's model is another one than its checkpoint.
bool has_original(const Recipe& recipe);
// What most of its linears are, for people.
Scheme scheme_of(const QuantizedModel& checkpoint);
// Which codes linears of a GGUF file are in, for people: "Q8_0, 28 of 28 linears"; empty: none, or numbers as they are published.
std::string codes_of(const Model& model);
// Throws InputError with what to do instead where there are such: other files are refused when they are opened.
void require_numbers(const Model& model);
// Throws InputError where a checkpoint cannot be of this model: the first size, name or setting that differs.
void require_same_architecture(const Model& original, const Model& checkpoint);

}  // namespace qb
