#pragma once
#include <initializer_list>
#include <string>
#include <vector>

#include "core/recipe/exports.h"

// What exports to other programs share; one function a program.
namespace qb {

std::string llm_compressor_script(const Recipe& recipe, std::vector<std::string>& notes);
std::string auto_round_script(const Recipe& recipe, std::vector<std::string>& notes);
std::string gptqmodel_script(const Recipe& recipe, std::vector<std::string>& notes);

std::string python_text(const std::string& text);   // a literal
std::string python_bool(bool value);
std::string shell_text(const std::string& text);    // one word of a shell
std::string number_text(double value);              // without an exponent
// A recipe's pattern of modules as a regular expression that must match the whole name.
std::string pattern_regex(const std::string& pattern);

[[noreturn]] void refuse(const std::string& key, const std::string& why);
// A note for every setting of a stage that is no default and not among `said`.
void note_other_knobs(const StageSpec& stage, std::initializer_list<const char*> said, const std::string& program, std::vector<std::string>& notes);
// A note for what none of these programs has: evaluation lists, importance files, mixes …; refuses measured checkpoints and schemes without weights.
void note_common(const Recipe& recipe, const std::string& program, std::vector<std::string>& notes);
// Python that leaves token windows of the calibration text in `windows`; MODEL, TEXT and `tokenizer` are set before.
// The imports that it needs come from python_imports().
std::string python_windows(const CalibrationSpec& calibration, const std::string& program, std::vector<std::string>& notes);
std::string python_imports(const std::string& windows);
// Without rounding that other stages imply.
std::vector<StageSpec> stages_of(const Recipe& recipe);
std::string output_name(const Recipe& recipe, const std::string& program);

}  // namespace qb
