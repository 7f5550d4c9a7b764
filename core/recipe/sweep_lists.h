#pragma once
#include <yaml-cpp/yaml.h>

#include <set>
#include <string>
#include <vector>

namespace qb {

// One value taken of a list.
struct SweepChoice {
  std::string list;  // where the list stands in the file: "pipeline[1][0].percdamp"
  std::string key;   // what it is the value of, in the recipe: "pipeline[0].percdamp"
  size_t index = 0;
  YAML::Node value;  // as the file has it
};

// One combination: a recipe's text, and how it came about.
struct SweepVariant {
  std::string yaml;
  std::vector<SweepChoice> choices;  // in the file's order
};

// All combinations of the lists that stand where a recipe has one value; the file's last list changes fastest. The keys in `settled`
// have their list's first value alone. Throws RecipeError (key, no position) for an empty list, for lists among other values where a
// list of lists is expected, and for more combinations than anybody carries out.
std::vector<SweepVariant> sweep_variants(const YAML::Node& root, const std::set<std::string>& settled);
bool has_sweep_lists(const YAML::Node& root);

// Where a key of the variant's recipe stands in the file.
std::string key_in_file(const SweepVariant& variant, const std::string& key);
// A value for people: "int4", "[awq, gptq]", "{method: gptq, percdamp: 0.1}".
std::string flow_text(const YAML::Node& node);

}  // namespace qb
