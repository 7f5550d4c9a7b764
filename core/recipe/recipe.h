#pragma once
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/method/method_info.h"
#include "core/quant/scheme.h"
#include "core/text/corpus.h"

namespace qb {

struct CalibrationSpec {
  CorpusSpec corpus;
  SamplingSpec sampling;
  bool operator==(const CalibrationSpec&) const = default;
};

// One entry of the evaluation list. Knobs left out have their defaults.
struct EvaluationSpec {
  CorpusSpec corpus;             // of an evaluator of tasks the task's file
  int64_t seq_len = 2048;        // of an evaluator of texts
  int64_t windows = 0;           // likewise; 0: all
  std::string dtype = "float32"; // float32 | bfloat16
  std::optional<Bos> bos = {};   // absent: the family's default
  std::string evaluator = "perplexity";  // of evaluators()
  std::map<std::string, KnobValue> knobs = {};  // the evaluator's own
  bool operator==(const EvaluationSpec& other) const;  // a default that is written down is no difference
};
// The value or the default. Throws InternalError for a knob that the evaluator does not have.
KnobValue knob(const EvaluationSpec& spec, const std::string& name);
std::map<std::string, KnobValue> all_knobs(const EvaluationSpec& spec);

// Where the result shall go: what the format or the engine does not take is said before any work.
struct TargetSpec {
  std::string format;              // of export_formats()
  std::string engine;              // of export_engines(); empty: any that loads the format
  bool operator==(const TargetSpec&) const = default;
};

// Everything that decides a result.
struct Recipe {
  std::string name;
  std::string description;         // one line for people, may be empty
  std::filesystem::path model;
  std::string dtype = "bfloat16";  // of the calibration's forward passes: float32 | bfloat16
  bool dequantize = false;         // the model may be a quantized one: what its codes stand for is taken for its weights
  std::filesystem::path checkpoint;  // a quantized checkpoint of the model, measured in place of a scheme and a pipeline; empty: none
  std::optional<TargetSpec> target;
  std::optional<CalibrationSpec> calibration;
  std::filesystem::path importance;  // of the calibration section: a file of the inputs' mean squares, in place of collected ones; empty: none
  Scheme scheme;
  std::vector<StageSpec> pipeline;
  bool propagate_quantized = true;
  std::vector<EvaluationSpec> evaluation;
  bool evaluate_float = true;      // also measure the float model (cached by model and text hash)
  uint64_t seed = 42;
  bool operator==(const Recipe&) const = default;
};

// Parses and validates. `origin` names the text in errors; relative paths are resolved against `base` (empty: kept).
// Throws RecipeError with line, column and key; unknown keys are errors with the nearest known one.
Recipe parse_recipe(const std::string& yaml, const std::string& origin, const std::filesystem::path& base = {});
Recipe load_recipe(const std::filesystem::path& path);
// Canonical YAML: parse_recipe(to_yaml(r)) == r. Keys at their defaults are written too, so that the file tells all.
std::string to_yaml(const Recipe& recipe);
// Checks a recipe made in code (form, preset). Throws RecipeError with key.
void validate(const Recipe& recipe);
// Identity of what decides the quantized weights and figures (name, description and target excluded).
std::string recipe_hash(const Recipe& recipe);

// Where a dotted key ("scheme.weights.type", "pipeline[0].method") stands in a text: 1-based line and column; the nearest
// parent's when the key itself is absent; {0, 0} when the text is not YAML.
struct Position {
  int line = 0, column = 0;
};
Position position_of(const std::string& yaml, const std::string& key);

}  // namespace qb
