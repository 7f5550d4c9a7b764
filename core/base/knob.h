#pragma once
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace qb {

using KnobValue = std::variant<bool, int64_t, double, std::string>;
std::string to_text(const KnobValue& value);

enum class KnobType { boolean, integer, real, choice };

// One setting of a method or of a scheme. Recipe validation, the command line's help and the form are made from this.
struct KnobInfo {
  std::string name;                    // its key in recipes
  std::string title;                   // for people: "Grid steps"
  KnobType type = KnobType::boolean;
  KnobValue default_value;
  double minimum = 0, maximum = 0;     // integer and real, inclusive
  std::vector<std::string> choices;    // choice
  std::string unit;                    // may be empty
  std::string help;                    // one line
  std::string source;                  // where the default comes from
  std::string zero = {};               // what 0 stands for where it is no number of them: "all samples"
};

// Empty when value is valid for the knob; else what is expected.
std::string knob_problem(const KnobInfo& knob, const KnobValue& value);
// What it takes, for people: "true or false", "gram | rows", "2 … 1000 steps".
std::string range_text(const KnobInfo& knob);
// The nearest names to a misspelled one, best first, for "did you mean".
std::vector<std::string> similar_names(const std::string& wrong, const std::vector<std::string>& names);

}  // namespace qb
