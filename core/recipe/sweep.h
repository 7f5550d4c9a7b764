#pragma once
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "core/recipe/recipe.h"

namespace qb {

// A sweep file is a recipe with lists where a recipe has one value: all combinations are recipes. What is a list by nature
// (pipeline, evaluation, scheme.ignore, scheme.overrides) is swept by a list of lists. At its top it may have
//   sweep: {name: TEXT, only: [FILTER …], exclude: [FILTER …], strict: BOOL}
// where a filter is a mapping of dotted keys to a value, or a list of values any of which it may be; all its keys must match.

struct SweepValue {
  std::string key, value;  // as the file has them: "scheme.weights.type", "int4"; "pipeline", "[awq, gptq]"
  bool operator==(const SweepValue&) const = default;
};

struct SweepRecipe {
  Recipe recipe;                      // its name tells what differs, and no other of the sweep has it
  std::vector<SweepValue> differing;  // what not all recipes of the sweep have
  size_t product_index = 0;           // its place among all combinations, of which the file's last list changes fastest
};

struct SweepOmission {
  std::string name, reason;
  std::vector<SweepValue> differing;
  bool filtered = false;  // by only or exclude: as the file asks
};

struct Sweep {
  std::string name;                   // sweep.name, the recipe's name, or the file's
  std::vector<SweepRecipe> recipes;   // in the order to carry them out: what can share statistics stands together, cheap ones first
  std::vector<SweepOmission> omitted;
  std::vector<std::string> notes;     // of filters that match nothing
};

// Parses, combines and validates. settings: as with_settings() takes them, for every recipe; a list whose key one of them sets is no
// list any more. Combinations that the recipe's own validation refuses are omitted with the reason, and with `strict` an error; a value
// that no recipe takes is one in any case. Throws RecipeError with file, line, column and key.
Sweep parse_sweep(const std::string& yaml, const std::string& origin, const std::filesystem::path& base = {}, const std::vector<std::string>& settings = {},
                  const std::filesystem::path& settings_base = {});
Sweep load_sweep(const std::filesystem::path& path, const std::vector<std::string>& settings = {}, const std::filesystem::path& settings_base = {});
// Whether a text is a sweep's rather than one recipe's: it has a "sweep" section, or a list where a recipe has one value. What is no
// YAML is none.
bool is_sweep(const std::string& yaml);

}  // namespace qb
