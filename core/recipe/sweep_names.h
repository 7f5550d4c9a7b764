#pragma once
#include <string>
#include <vector>

#include "core/recipe/recipe.h"
#include "core/recipe/sweep_lists.h"

namespace qb {

// Short names of what differs between variants: "int4 g64 awq+gptq seed 1". `recipes` has what variants are, nullptr where they are
// none; `told`: for each variant the places of its choices that differ. No two names are the same.
std::vector<std::string> sweep_names(const std::vector<SweepVariant>& variants, const std::vector<const Recipe*>& recipes, const std::vector<std::vector<size_t>>& told,
                                     const std::string& fallback);

}  // namespace qb
