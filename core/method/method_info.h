#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace qb {

using KnobValue = std::variant<bool, int64_t, double, std::string>;
std::string to_text(const KnobValue& value);

enum class KnobType { boolean, integer, real, choice };

// One setting of a method. Recipe validation, the command line's help, the form and the manual are made from this.
struct KnobInfo {
  std::string name;
  KnobType type = KnobType::boolean;
  KnobValue default_value;
  double minimum = 0, maximum = 0;     // integer and real, inclusive
  std::vector<std::string> choices;    // choice
  std::string unit;                    // may be empty
  std::string help;                    // one line
  std::string source;                  // where the default comes from
  std::string zero = {};               // what 0 stands for where it is no number of them: "all samples"
};

enum class MethodClass { transformation, clipping, reconstruction, sparsity, cache };
std::string to_text(MethodClass value);

// What a method is, torch-free.
struct MethodInfo {
  std::string name;    // as in recipes: "rtn", "gptq", "awq"
  std::string title;   // "Round to nearest"
  MethodClass kind = MethodClass::reconstruction;
  std::string help;    // one or two sentences
  std::string source;  // paper
  bool needs_calibration = false;
  bool rounds = false;  // leaves codes, so that no implicit rounding follows
  bool follows_rounding = false;  // may stand after a stage that rounds (and rounds to nearest itself where none did)
  bool whole_model = false;       // changes the model before its blocks are walked: stands before all other stages
  bool packs_grid = false;        // stores scales in few bits, so that they cannot change freely afterwards
  bool finishing = false;         // learns on the whole model after its blocks are done: stands after all other stages
  std::vector<KnobInfo> knobs;
};

// A method with its knobs at its place in a pipeline. Knobs left out have their defaults.
struct StageSpec {
  std::string method;
  std::map<std::string, KnobValue> knobs;
  bool operator==(const StageSpec& other) const;  // a default that is written down is no difference
};

// All methods of this build, in the order of the paper's classes.
const std::vector<MethodInfo>& methods();
// nullptr when there is none of that name.
const MethodInfo* find_method(const std::string& name);
// The nearest names to a misspelled one, best first, for "did you mean".
std::vector<std::string> similar_names(const std::string& wrong, const std::vector<std::string>& names);
// Empty when value is valid for the knob; else what is expected.
std::string knob_problem(const KnobInfo& knob, const KnobValue& value);
// Empty when the method exists and every knob given is known and valid; else one sentence.
std::string stage_problem(const StageSpec& stage);
// The stage's value or the default. Throws InternalError for a knob that the method does not have.
KnobValue knob(const StageSpec& stage, const std::string& name);

}  // namespace qb
